"""Exports the classifier of a finished run as the next SavedModel version: `robgan export --run_dir=R`."""

from __future__ import annotations

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS


def export():
    """Exports the run that the flags name."""
    command_line.import_tensorflow()
    from robgan_tf.experiment import run

    experiment, run_directory = command_line.open_run()
    command_line.or_fail(lambda: run.export(experiment, run_directory))


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_config_flags(values)
    command_line.define_path("run_dir", paths.folder_to_write, "Folder of a finished run.", values)


def main():
    """Runs this command."""
    command_line.main(export, define_flags)


if __name__ == "__main__":
    main()
