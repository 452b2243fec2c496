"""What the command lines share: flags, exit status, messages.

Exit status: 0 done; 2 wrong flags, configuration or data, with one line that says what and how to fix it; 1 a fault
while running, with the last good checkpoint.
"""

from __future__ import annotations

import ctypes
import difflib
import importlib
import logging as standard_logging
import os
import pathlib
import re
import sys
import textwrap
import traceback
from typing import Callable, NoReturn

from absl import app, flags, logging

from robgan_tf import __version__, gin_files, streams

# TensorFlow's own lines about missing CUDA libraries drown what the user has to see. Set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_M_ARENA_MAX = -8  # of glibc's malloc.h


def _share_heaps():
    """Lets threads share the heaps of glibc's malloc, before they are started; MALLOC_ARENA_MAX has its usual meaning.

    Else each of TensorFlow's threads keeps what it has freed to itself, up to a fifth of the memory of a training step.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, max((os.cpu_count() or 1) // 4, 1))


_share_heaps()

FLAGS = flags.FLAGS

# What wrong input raises while an experiment is built. RuntimeError is gin's for a missing required binding.
_USER_ERRORS = (ValueError, TypeError, OSError, SyntaxError, RuntimeError)


_WIDTH = 110  # of help


def define_config_flags(values: flags.FlagValues):
    """Defines the flags that name a configuration."""
    flags.DEFINE_multi_string(
        "gin_file", [], "Configuration, e.g. gin/digits.gin; repeatable, later ones win.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "gin_param", [], "One binding, e.g. 'Experiment.seed=1'; repeatable, wins over files.", flag_values=values
    )


class _PathParser(flags.ArgumentParser):
    """Reads a path by one of the functions of `robgan_tf.paths`, which refuse those that would not do."""

    syntactic_help = "a path"

    def __init__(self, name: str, check: Callable[[str, str], str]):
        super().__init__()
        self._name, self._check = name, check

    def parse(self, argument):
        return self._check(argument, self._name)


def define_path(name: str, check: Callable, what: str, values: flags.FlagValues, multi: bool = False):
    """Defines a flag that takes a path, or with `multi` several; `check` is of `robgan_tf.paths`."""
    parser, serializer = _PathParser(f"--{name}", check), flags.ArgumentSerializer()
    if multi:
        flags.DEFINE_multi(parser, serializer, name, [], what, flag_values=values)
    else:
        flags.DEFINE(parser, name, None, what, flag_values=values, serializer=serializer)


def fail(*messages: str) -> NoReturn:
    """Ends the program with status 2 and a line for each message."""
    for message in messages:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def wrapped(line: str) -> str:
    """Returns a line as lines of a terminal's usual width, the further ones indented."""
    indent = " " * (len(line) - len(line.lstrip()))
    return "\n".join(textwrap.wrap(line, _WIDTH, subsequent_indent=f"{indent}    ", break_long_words=False))


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line, without gin's trail of calls."""
    if isinstance(error, RecursionError):
        return "in the configuration a part refers to itself, or two to each other: look at its references, @Name()"
    text = re.sub(r"\n?\s*In call to configurable '([^']*)' \(.*?\)( in scope '[^']*')?(?=\n|$)", "", str(error))
    missing = re.match(r"Required bindings for `(.+?)` not provided in config: \[(.*?)\]", text)
    if missing:
        names = ", ".join(f"{missing[1]}.{name}" for name in re.findall(r"'(\w+)'", missing[2]))
        return f"{names} must be set: bind what is missing, or include a file that does, such as gin/digits.gin"
    return re.sub(r"\s+", " ", text).strip() or type(error).__name__


def end_printed():
    """Ends the program with status 1 where something that it printed was lost, on a full disk for example."""
    lost = streams.lost()
    if lost:
        print(f"error: all is done, but {lost}", file=sys.stderr)
        sys.exit(1)


def or_fail(function: Callable):
    """Returns what `function` returns; wrong input ends the program with status 2, and a line for each problem."""
    try:
        return function()
    except Exception as error:
        # TensorFlow's own, by name: it need not have been imported.
        by_tensorflow = any(kind.__name__ == "OpError" for kind in type(error).__mro__)
        if not by_tensorflow and not isinstance(error, _USER_ERRORS):
            raise
        logging.debug("%s", traceback.format_exc())
        # A part that several others refer to fails for each of them: the same words, once.
        fail(*dict.fromkeys(map(one_line, getattr(error, "problems", [error]))))


def import_tensorflow():
    """Imports TensorFlow without its lines about what it was compiled for and missing CUDA libraries."""
    if "tensorflow" not in sys.modules:
        with streams.native_lines_held():
            importlib.import_module("tensorflow")


def build_experiment(files, params, dry_run: bool = False):
    """Reads the configuration and makes the experiment; wrong input ends the program with status 2.

    Args:
        files: configurations.
        params: single bindings, which win.
        dry_run: see `robgan_tf.experiment.build.Experiment`.
    """
    from robgan_tf import configuration

    or_fail(lambda: configuration.check_text(files))  # before TensorFlow is imported, which takes seconds
    from robgan_tf.experiment.build import build  # makes all parts known to gin

    or_fail(lambda: configuration.read(files, params))
    return or_fail(lambda: build(dry_run=dry_run))


def changes_the_run(params) -> bool:
    """Whether bindings change what a run was made with; where its data are now does not."""
    return any(not re.match(r"\s*[\w/.]+\.data_dir\s*=", param) for param in params)


def open_run_directory():
    """Returns the folder of the run that --run_dir names; ends the program where it holds none."""
    from robgan_tf.run.directory import RunDirectory

    if not FLAGS.run_dir:
        fail("--run_dir is missing, e.g. --run_dir=runs/digits")
    run_directory = RunDirectory(FLAGS.run_dir)
    if not run_directory.config.exists():
        folder = pathlib.Path(FLAGS.run_dir)
        runs = sorted(str(path.parent) for path in (*folder.glob("*/config.gin"), *folder.parent.glob("*/config.gin")))
        near = difflib.get_close_matches(FLAGS.run_dir, runs, n=3, cutoff=0)
        fail(
            f"--run_dir={FLAGS.run_dir} holds no run (no config.gin)"
            + (f"; there is {', '.join(near)}" if near else "")
        )
    return run_directory


def open_run():
    """Returns experiment and folder of the run that --run_dir names, in its own configuration."""
    run_directory = open_run_directory()
    if FLAGS.gin_file:
        fail("--gin_file does not go with --run_dir: a run has its own config.gin; change bindings with --gin_param")
    return build_experiment([str(run_directory.config)], FLAGS.gin_param), run_directory


class _Line(standard_logging.Formatter):
    """Writes "warning: ..." as errors are written, without time, thread and line of code."""

    def format(self, record):
        return f"{record.levelname.lower()}: {super().format(record)}"


def own_flags(define_flags: Callable[[], None]) -> dict[str, bool]:
    """Returns the names of the flags that `define_flags` defines, and whether each is a switch; they stay undefined."""
    values = flags.FlagValues()
    define_flags(values)
    return {name: values[name].boolean for name in values}


def help_text(function: Callable, define_flags: Callable, program: str, arguments: str = "") -> str:
    """Returns what --help shows: what a command does, its flags, the configurations, and an example."""
    module = sys.modules[function.__module__]
    lines = [module.__doc__.strip().splitlines()[0], "", f"usage: {program} {arguments or '[flags]'}", ""]
    values = flags.FlagValues()
    define_flags(values)
    width = max((len(name) for name in values), default=0) + 6
    for name in values:
        flag = values[name]
        what = flag.help.partition(";\n")[0]  # absl adds how to repeat a flag
        default = "" if flag.default in (None, [], False) else f" ({flag.default} if not given)"
        lines += textwrap.wrap(
            f"{'--' + name + ('' if flag.boolean else '='):{width}}{what}{default}",
            _WIDTH - 2,
            initial_indent="  ",
            subsequent_indent=" " * (width + 2),
        )
    lines.append("  --help, --version")
    if "gin_file" in values:
        lines += ["", "configurations (robgan configurations says more):"]
        behind = {}
        for path, what in gin_files.listing():
            folder, _, name = path.rpartition("/")
            if folder == "gin":
                lines.append(f"  {path:26}{textwrap.shorten(what, _WIDTH - 28, placeholder=' ...')}")
            else:
                behind.setdefault(folder, []).append(name)
        for folder, names in behind.items():
            text = f"{folder}/: {' '.join(name.removesuffix('.gin') for name in names)}"
            lines += textwrap.wrap(text, _WIDTH - 2, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def main(function: Callable, define_flags: Callable, several_workers: bool = False, arguments: str = ""):
    """Runs a command: defines and parses the flags, calls `function`, and exits with the right status.

    Args:
        function: does what the flags say.
        define_flags: defines the command's flags, in the `FlagValues` that it is given.
        several_workers: whether it heeds a TF_CONFIG, and runs on all machines that this names.
        arguments: what it takes beside flags, for its help: `function` is then called with them, a list.
    """
    streams.make_lasting()
    if not several_workers:
        os.environ.pop("TF_CONFIG", None)
    define_flags(FLAGS)

    def parse(argv):
        program = argv[0] if argv[0].startswith("robgan ") else f"python -m robgan_tf.{pathlib.Path(argv[0]).stem}"
        if any(argument in ("--help", "-help", "-h", "--helpshort", "--helpfull") for argument in argv[1:]):
            print(help_text(function, define_flags, program, arguments))
            end_printed()
            sys.exit(0)
        if "--version" in argv[1:]:
            print(f"robgan_tf {__version__}")
            sys.exit(0)
        try:
            rest = FLAGS(argv)
        except flags.IllegalFlagValueError as error:
            fail(re.sub(r"^flag (--\w+)=.*?: (?=\1)", "", one_line(error)))  # a path's message names the flag itself
        except flags.UnrecognizedFlagError as error:
            near = re.search(r"Did you mean: (\w+)", str(error))
            meant = f"; did you mean --{near[1]}?" if near else ""
            fail(f"there is no flag --{error.flagname}{meant} (--help lists the flags)")
        except flags.Error as error:
            fail(f"{one_line(error)} (--help lists the flags)")
        if rest[1:] and not arguments:
            meant = f"; did you mean --gin_file={rest[1]}?" if rest[1].endswith(".gin") else ""
            fail(f"unexpected argument {rest[1]!r}{meant} (--help lists the flags)")
        if not FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_handler().setFormatter(_Line())
        if "gin_file" in FLAGS:  # before TensorFlow is imported, which takes seconds
            FLAGS.gin_file = or_fail(lambda: [gin_files.find(file) for file in FLAGS.gin_file])
        return rest

    def call(argv):
        try:
            function(*([argv[1:]] if arguments else []))
        except ImportError as error:
            if error.name not in ("tensorflow", "tf_keras"):
                raise
            fail(one_line(error))  # says what to install
        end_printed()

    app.run(call, flags_parser=parse)
