"""Measures accuracy under attack, of a run or of any exported classifier.

`python -m robgan_tf.evaluate --run_dir=runs/digits` writes the run's `robustness.json` anew.
`python -m robgan_tf.evaluate --saved_model=DIR --gin_file=gin/digits.gin --out=report.json` takes data and attack from
the configuration and the classifier from the SavedModel.
"""

from __future__ import annotations

import json
import pathlib

from absl import flags

from robgan_tf import command_line

FLAGS = flags.FLAGS


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
    from robgan_tf.runtime.run_directory import RunDirectory, write_json
    from robgan_tf.serving.saved_model import load_classifier

    if FLAGS.run_dir is not None:
        experiment, run_directory = command_line.open_run()
        report = command_line.or_fail(lambda: experiment.evaluate(run_directory))
        out = pathlib.Path(FLAGS.out) if FLAGS.out else RunDirectory(FLAGS.run_dir).robustness
    else:
        classifier = command_line.or_fail(lambda: load_classifier(FLAGS.saved_model))
        experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
        report = {
            "saved_model": FLAGS.saved_model,
            **command_line.or_fail(lambda: experiment.evaluate_logits(classifier.logits)),
        }
        out = FLAGS.out and pathlib.Path(FLAGS.out)
    if out:
        write_json(out, report)
        print(f"wrote {out}")
    else:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    command_line.define_config_flags()
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.DEFINE_string("saved_model", None, "Folder of an exported classifier, e.g. runs/digits/export/1.")
    flags.DEFINE_string("out", None, "File for the report; the run's robustness.json, or the screen, if not given.")
    command_line.main(evaluate)
