"""Measures accuracy under attack, of a run or of any exported classifier; with --generator, generated images.

`python -m robgan_tf.evaluate --run_dir=runs/digits` writes the run's `robustness.json` anew.
`python -m robgan_tf.evaluate --saved_model=DIR --gin_file=gin/digits.gin --out=report.json` takes data and attack from
the configuration and the classifier from the SavedModel: one of `robgan_tf.export`, or any other with a signature from
float images in [-1, 1] to class logits. `--gin_file=gin/evaluation/standard.gin` beside it takes stronger attacks.

`python -m robgan_tf.evaluate --run_dir=runs/digits --generator` writes the run's `generation.json`: scores of its
generator's images, by the classifiers that `--extractor=DIR` names (exports or runs), or by one that is trained for it.
`--samples=FILE.npz` takes the images of a file instead (uint8 `images`, integer `labels`), and may stand with
`--gin_file` and `--out` in place of a run.
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
    if FLAGS.out is not None and not FLAGS.out.endswith(".json"):
        beside = "a folder of that name, for statistics" if FLAGS.generator else "a page for people, with .html"
        command_line.fail(f"--out={FLAGS.out} must end in .json: beside it is {beside}")
    if FLAGS.generator:
        evaluate_generator()
    elif FLAGS.extractor or FLAGS.samples:
        command_line.fail("--extractor and --samples are for the measures of a generator: add --generator")
    else:
        evaluate_classifier()


def evaluate_generator():
    """Measures the generator of a run, or the images of a file."""
    if FLAGS.saved_model is not None or FLAGS.strict:
        command_line.fail("--saved_model and --strict are for classifiers: they do not go with --generator")
    if FLAGS.run_dir is None and not (FLAGS.samples and FLAGS.gin_file and FLAGS.out):
        command_line.fail("--generator needs --run_dir=R, or --samples=FILE.npz with --gin_file=F and --out=FILE.json")
    if FLAGS.run_dir is not None and (FLAGS.gin_param or FLAGS.samples) and FLAGS.out is None:
        command_line.fail(
            "--gin_param and --samples measure something else than the run's generator as it was configured: give "
            "--out, so that its own generation.json stays"
        )
    from robgan_tf.generation.extractors import classifier_extractor
    from robgan_tf.pages.run_page import update_run_report
    from robgan_tf.run.directory import RunDirectory, write_json
    from robgan_tf.run.tensorboard import write_generation

    if FLAGS.run_dir is not None:
        experiment, run_directory = command_line.open_run()
    else:
        experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
        run_directory = RunDirectory(str(pathlib.Path(FLAGS.out).with_suffix("")))
    # Behind the experiment, which sets up the devices: that is too late once TensorFlow has loaded anything.
    extractors = command_line.or_fail(lambda: [classifier_extractor(folder) for folder in FLAGS.extractor])
    report = command_line.or_fail(lambda: experiment.evaluate_generator(run_directory, extractors, FLAGS.samples))
    out = pathlib.Path(FLAGS.out) if FLAGS.out else run_directory.generation
    write_json(out, report)
    print(f"wrote {out}")
    if not FLAGS.out:
        write_generation(run_directory.tensorboard, report)
        update_run_report(run_directory)


def evaluate_classifier():
    """Attacks the classifier of a run, or of a SavedModel."""
    if (FLAGS.run_dir is None) == (FLAGS.saved_model is None):
        command_line.fail("give either --run_dir=R or --saved_model=DIR with --gin_file=F")
    if FLAGS.saved_model is None and FLAGS.gin_param and FLAGS.out is None:
        command_line.fail(
            "--gin_param changes what the run was made with: give --out, so that its own robustness.json stays"
        )
    if FLAGS.saved_model is not None and not FLAGS.gin_file:
        command_line.fail("--saved_model needs --gin_file, for the data and the attack")
    from robgan_tf.pages.run_page import update_run_report
    from robgan_tf.run.tensorboard import write_evaluation
    from robgan_tf.serving.loading import load_logits

    if FLAGS.run_dir is not None:
        experiment, run_directory = command_line.open_run()
        evaluation = command_line.or_fail(lambda: experiment.evaluate(run_directory))
        out = pathlib.Path(FLAGS.out) if FLAGS.out else run_directory.robustness
    else:
        experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
        logits = command_line.or_fail(lambda: load_logits(FLAGS.saved_model))  # behind the set-up of the devices
        evaluation = command_line.or_fail(lambda: experiment.evaluate_logits(logits))
        evaluation.report["saved_model"] = FLAGS.saved_model
        out = FLAGS.out and pathlib.Path(FLAGS.out)
    of_run = FLAGS.run_dir is not None and not FLAGS.out
    if of_run:
        write_evaluation(run_directory.tensorboard, evaluation.report)
    if out:
        evaluation.write(out)
        print(f"wrote {out}, and {out.with_suffix('.html')} for people")
    else:
        print(json.dumps(evaluation.report, indent=2))
    if of_run:
        update_run_report(run_directory)
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
    flags.DEFINE_boolean("generator", False, "Measure the generator, not the classifier.")
    flags.DEFINE_multi_string("extractor", [], "With --generator: export or run whose classifier makes the features.")
    flags.DEFINE_string("samples", None, "With --generator: .npz file with images to measure instead of the run's.")
    command_line.main(evaluate)
