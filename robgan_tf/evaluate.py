"""Measures accuracy under attack, of a run or of any exported classifier.

`python -m robgan_tf.evaluate --run_dir=runs/digits` writes the run's `robustness.json` anew.
`python -m robgan_tf.evaluate --saved_model=DIR --gin_file=gin/digits.gin --out=report.json` takes data and attack from
the configuration and the classifier from the SavedModel: one of `robgan_tf.export`, or any other with a signature from
float images in [-1, 1] to class logits. `--gin_file=gin/evaluation/standard.gin` beside it takes stronger attacks.
"""

from __future__ import annotations

import json
import pathlib
import sys

from absl import flags

from robgan_tf import command_line

FLAGS = flags.FLAGS

# Exit status of --strict where a check failed.
_NOT_BELIEVED = 3


def evaluate():
    """Evaluates what the flags say."""
    if (FLAGS.run_dir is None) == (FLAGS.saved_model is None):
        command_line.fail("give either --run_dir=R or --saved_model=DIR with --gin_file=F")
    if FLAGS.saved_model is None and FLAGS.gin_param and FLAGS.out is None:
        command_line.fail(
            "--gin_param changes what the run was made with: give --out, so that its own robustness.json stays"
        )
    if FLAGS.saved_model is not None and not FLAGS.gin_file:
        command_line.fail("--saved_model needs --gin_file, for the data and the attack")
    from robgan_tf.runtime.run_directory import RunDirectory
    from robgan_tf.serving.loading import load_logits

    if FLAGS.run_dir is not None:
        experiment, run_directory = command_line.open_run()
        evaluation = command_line.or_fail(lambda: experiment.evaluate(run_directory))
        out = pathlib.Path(FLAGS.out) if FLAGS.out else RunDirectory(FLAGS.run_dir).robustness
    else:
        logits = command_line.or_fail(lambda: load_logits(FLAGS.saved_model))
        experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
        evaluation = command_line.or_fail(lambda: experiment.evaluate_logits(logits))
        evaluation.report["saved_model"] = FLAGS.saved_model
        out = FLAGS.out and pathlib.Path(FLAGS.out)
    if out:
        evaluation.write(out)
        print(f"wrote {out}, and {out.with_suffix('.html')} for people")
    else:
        print(json.dumps(evaluation.report, indent=2))
    for line in evaluation.failed_checks:
        print(f"check failed: {line}", file=sys.stderr)
    if FLAGS.strict and evaluation.failed_checks:
        sys.exit(_NOT_BELIEVED)


if __name__ == "__main__":
    command_line.define_config_flags()
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.DEFINE_string("saved_model", None, "Folder of an exported classifier, e.g. runs/digits/export/1.")
    flags.DEFINE_string("out", None, "File for the report; the run's robustness.json, or the screen, if not given.")
    flags.DEFINE_boolean("strict", False, "Exit with status 3 if a check of the evaluation fails.")
    command_line.main(evaluate)
