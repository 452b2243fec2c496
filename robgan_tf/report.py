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
    from robgan_tf.run.directory import RunDirectory

    if not FLAGS.run_dir:
        command_line.fail("--run_dir is missing, e.g. --run_dir=runs/digits")
    run_directory = RunDirectory(FLAGS.run_dir)
    if not run_directory.config.exists():
        command_line.fail(f"--run_dir={FLAGS.run_dir} holds no run (no config.gin)")
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
