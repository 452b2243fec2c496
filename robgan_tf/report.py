"""Writes the report of a run, finished or not: `robgan report --run_dir=R` makes R/report.html anew."""

from __future__ import annotations

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS


def report():
    """Writes the report of the run that the flags name."""
    command_line.import_tensorflow()
    from robgan_tf.experiment import parts  # noqa: F401 - declares metrics, for runs of older versions, which did not
    from robgan_tf.pages.run_page import write_run_report

    run_directory = command_line.open_run_directory()
    command_line.or_fail(lambda: write_run_report(run_directory))
    print(f"wrote {run_directory.report}")


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_path("run_dir", paths.folder_to_write, "Folder of a run.", values)


def main():
    """Runs this command."""
    command_line.main(report, define_flags)


if __name__ == "__main__":
    main()
