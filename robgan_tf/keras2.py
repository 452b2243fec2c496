"""Keras 2, the one that the project is written for: TensorFlow's own up to 2.15, tf-keras where TensorFlow is newer."""

import tensorflow as tf

if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
    from tensorflow import keras
else:
    import tf_keras as keras

__all__ = ["keras"]
