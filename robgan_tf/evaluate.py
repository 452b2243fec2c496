"""Measures accuracy under attack, of a run's classifier or of any exported one.

`python -m robgan_tf.evaluate --run_dir=runs/digits` writes the run's `robustness.json` anew.
`python -m robgan_tf.evaluate --saved_model=DIR --gin_file=gin/digits.gin --out=report.json` takes data and attack from
the configuration and the classifier from the SavedModel: one of `robgan_tf.export`, or any other with a signature from
float images in [-1, 1] to class logits. `--gin_file=gin/evaluation/standard.gin` beside it takes stronger attacks.

Generated images are measured by `python -m robgan_tf.evaluate_generator`.
"""

from __future__ import annotations

import json
import pathlib
import sys

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS

# Exit status of --strict where a check failed.
_CHECK_FAILED = 3


def evaluate():
    """Attacks the classifier of a run, or of a SavedModel, and writes what came out."""
    if FLAGS.out is not None and not FLAGS.out.endswith(".json"):
        command_line.fail(f"--out={FLAGS.out} must end in .json: the page for people beside it ends in .html")
    if (FLAGS.run_dir is None) == (FLAGS.saved_model is None):
        command_line.fail("give either --run_dir=R or --saved_model=DIR with --gin_file=F")
    evaluation = evaluate_run() if FLAGS.run_dir is not None else evaluate_saved_model()
    if FLAGS.robustbench:
        from robgan_tf.data.files import write_json

        write_json(pathlib.Path(FLAGS.robustbench), evaluation.report["robustbench"])
        print(f"wrote {FLAGS.robustbench}: fill in name, authors, link and venue")
    for line in evaluation.failed_checks:
        print(f"check failed: {line}", file=sys.stderr)
    if FLAGS.strict and evaluation.failed_checks:
        sys.exit(_CHECK_FAILED)


def evaluate_run():
    """Evaluates the classifier of a run; returns the evaluation, which is written."""
    if command_line.changes_the_run(FLAGS.gin_param) and FLAGS.out is None:
        command_line.fail(
            "--gin_param changes what the run was made with: give --out, so that its own robustness.json stays"
        )
    command_line.import_tensorflow()
    from robgan_tf.experiment import run
    from robgan_tf.pages.run_page import update_run_report
    from robgan_tf.run.tensorboard import write_evaluation

    experiment, run_directory = command_line.open_run()
    evaluation = command_line.or_fail(lambda: run.evaluate(experiment, run_directory))
    if FLAGS.out:
        write(evaluation, FLAGS.out)
    else:
        write_evaluation(run_directory.tensorboard, evaluation.report)
        write(evaluation, run_directory.robustness)
        update_run_report(run_directory)
    return evaluation


def evaluate_saved_model():
    """Evaluates a SavedModel; returns the evaluation, which is written or printed."""
    if not FLAGS.gin_file:
        command_line.fail("--saved_model needs --gin_file, for the data and the attack")
    command_line.import_tensorflow()
    from robgan_tf.experiment import run
    from robgan_tf.serving.loading import load_logits

    experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
    logits = command_line.or_fail(lambda: load_logits(FLAGS.saved_model))  # behind the set-up of the devices
    evaluation = command_line.or_fail(lambda: run.evaluate_logits(experiment, logits))
    evaluation.report["saved_model"] = FLAGS.saved_model
    if FLAGS.out:
        write(evaluation, FLAGS.out)
    else:
        print(json.dumps(evaluation.report, indent=2))
    return evaluation


def write(evaluation, out):
    """Writes an evaluation as JSON to `out` and as a page beside it, and says so."""
    out = pathlib.Path(out)
    evaluation.write(out)
    print(f"wrote {out}, and {out.with_suffix('.html')} for people")


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_config_flags(values)
    command_line.define_path("run_dir", paths.user_path, "Folder of a finished run.", values)
    command_line.define_path(
        "saved_model", paths.user_path, "Folder of an exported classifier, e.g. runs/digits/export/1.", values
    )
    command_line.define_path(
        "out",
        paths.file_to_write,
        "File for the report; the run's robustness.json, or the screen, if not given.",
        values,
    )
    command_line.define_path(
        "robustbench", paths.file_to_write, "File for an entry in the form of RobustBench's model_info.", values
    )
    flags.DEFINE_boolean("strict", False, "Exit with status 3 if a check of the evaluation fails.", flag_values=values)


def main():
    """Runs this command."""
    if any(argument.split("=")[0].lstrip("-") == "generator" for argument in sys.argv[1:]):
        command_line.fail(
            "--generator is a command of its own now: python -m robgan_tf.evaluate_generator, with the same other flags"
        )
    command_line.main(evaluate, define_flags)


if __name__ == "__main__":
    main()
