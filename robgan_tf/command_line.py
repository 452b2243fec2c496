"""What the command lines share: flags, exit status, messages.

Exit status: 0 done; 2 wrong flags, configuration or data, with one line that says what and how to fix it; 1 a fault
while running, with the last good checkpoint.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Callable, NoReturn

from absl import app, flags, logging

# TensorFlow's own lines about missing CUDA libraries drown what the user has to see. Set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = flags.FLAGS

# What wrong input raises while an experiment is built. RuntimeError is gin's for a missing required binding.
_USER_ERRORS = (ValueError, TypeError, OSError, SyntaxError, RuntimeError)


def define_config_flags():
    """Defines the flags that name a configuration."""
    flags.DEFINE_multi_string("gin_file", [], "Configuration, e.g. gin/digits.gin; repeatable, later ones win.")
    flags.DEFINE_multi_string("gin_param", [], "One binding, e.g. 'configure.seed=1'; repeatable, wins over files.")


def fail(message: str) -> NoReturn:
    """Ends the program with status 2 and one line."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line, without gin's trail of calls."""
    text = re.sub(r"\n?\s*In call to configurable '([^']*)' \(.*?\)(?=\n|$)", "", str(error))
    return re.sub(r"\s+", " ", text).strip() or type(error).__name__


def parse_config(files, params):
    """Reads the configuration; wrong input ends the program with status 2.

    A file is looked for, and its includes too, as given and in all folders above the given files: `include
    'gin/digits.gin'` works from any working directory.
    """
    import gin

    from robgan_tf import experiment  # noqa: F401  (makes everything known to gin)

    for file in files:
        for folder in [os.path.dirname(os.path.abspath(file)), *_parents(os.path.abspath(file))]:
            gin.add_config_file_search_path(folder)
    try:
        gin.parse_config_files_and_bindings(list(files), list(params))
    except Exception as error:  # gin raises many kinds, all of them about the user's text
        fail(f"in the configuration: {one_line(error)}")


def build_experiment():
    """Makes the experiment that the configuration describes; wrong input ends the program with status 2."""
    from robgan_tf.experiment import Experiment

    try:
        return Experiment()
    except _USER_ERRORS as error:
        logging.debug("%s", traceback.format_exc())
        fail(one_line(error))


def main(function: Callable[[], None]):
    """Runs a command: parses the flags, calls `function`, and exits with the right status."""

    def parse(argv):
        try:
            rest = FLAGS(argv)
        except flags.Error as error:
            fail(f"{one_line(error)} (--help lists the flags)")
        if rest[1:]:
            fail(f"unexpected argument {rest[1]!r} (--help lists the flags)")
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        return rest

    app.run(lambda argv: function(), flags_parser=parse)


def _parents(path: str) -> list[str]:
    folders = []
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        folders.append(path)
    return folders
