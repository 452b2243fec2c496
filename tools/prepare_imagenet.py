"""The former name of `python -m robgan_tf.prepare`."""

from robgan_tf.prepare import main

if __name__ == "__main__":
    main()
