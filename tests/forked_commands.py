"""Runs commands of Python, one after the other, each in a process of its own that has TensorFlow imported already.

Reads a JSON list of words a line, such as ["-m", "robgan_tf.train", "--gin_file=..."], ["-c", "print(1)"] or a script's
path with its arguments, and answers the exit status, a line each. What the commands print goes to the file that the
first argument names. Importing TensorFlow takes as long as many of the commands of the docs.
"""

import importlib
import json
import os
import runpy
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
importlib.import_module("robgan_tf.experiment.build")  # with TensorFlow; it starts nothing that a fork would break


def run(words):
    """Does what `python WORDS...` does."""
    what, *arguments = words
    if what == "-c":
        sys.argv = ["-c"]
        exec(compile(arguments[0], "<docs>", "exec"), {"__name__": "__main__"})
    elif what == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = os.path.dirname(what)
        runpy.run_path(what, run_name="__main__")


def main():
    """Answers the lines of standard input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with open(sys.argv[1], "w") as printed:
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
            run(json.loads(line))
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
