"""Rob-GAN from the command line: `robgan train --gin_file=gin/digits.gin`, or `python -m robgan_tf train ...`.

Each command is also a module: `robgan train` is `python -m robgan_tf.train`.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from robgan_tf import __version__, command_line, completion, gin_files, streams

# Each with what it does, so that the list needs no import of theirs.
COMMANDS = {
    "train": "train a robust classifier and a generator, evaluate and export",
    "evaluate": "measure a classifier's accuracy under attack",
    "evaluate_generator": "measure the images of a generator",
    "compare": "put the accuracies of several classifiers side by side",
    "sample": "show generated and attacked images",
    "export": "export the classifier of a finished run",
    "report": "write the report of a run anew",
    "prepare": "turn ImageNet, a folder or a TFDS set into records",
}
OTHERS = {
    "configurations": "list the configurations that --gin_file can name",
    "completion": "print the completion script of a shell: robgan completion bash",
}


def usage() -> str:
    """Returns the list of commands."""
    rows = [f"  {name:19}{what}" for name, what in {**COMMANDS, **OTHERS}.items()]
    return "\n".join(
        [
            "usage: robgan COMMAND [flags]    (robgan COMMAND --help lists the flags of a command)",
            "",
            *rows,
            "",
            "example: robgan train --gin_file=gin/digits.gin --run_dir=runs/digits",
        ]
    )


def main():
    """Runs the command that the first argument names."""
    streams.make_lasting()
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as under `python -m`: `import my_defence` in a configuration
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name in ("--version", "version"):
        print(f"robgan_tf {__version__}")
    elif name == "configurations":
        if arguments:
            command_line.fail(f"robgan configurations lists all, and takes nothing; got {arguments[0]!r}")
        for path, what in gin_files.listing():
            print(f"{path:55}{what}")
    elif name == "completion":
        if arguments[1:] or not arguments or arguments[0] not in completion.SHELLS:
            command_line.fail(f"robgan completion takes the name of a shell, {' or '.join(completion.SHELLS)}")
        print(completion.script(arguments[0], COMMANDS, OTHERS))
    elif name in COMMANDS:
        sys.argv = [f"robgan {name}", *arguments]
        importlib.import_module(f"robgan_tf.{name}").main()
    else:
        near = difflib.get_close_matches(name, [*COMMANDS, *OTHERS], n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join([*COMMANDS, *OTHERS])}"
        command_line.fail(f"there is no command {name!r}; {meant}")


if __name__ == "__main__":
    main()
