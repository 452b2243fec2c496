"""Measures generated images: of a run's generator, or of a file.

`python -m robgan_tf.evaluate_generator --run_dir=runs/digits` writes the run's `generation.json`: scores of its
generator's images, by the classifiers that `--extractor=DIR` names (exports or runs), or by one that is trained for it.
`--samples=FILE.npz` takes the images of a file instead (uint8 `images`, integer `labels`), and may stand with
`--gin_file` and `--out` in place of a run.
"""

from __future__ import annotations

import pathlib

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS


def evaluate_generator():
    """Measures the generator of a run, or the images of a file, and writes the scores."""
    if FLAGS.out is not None and not FLAGS.out.endswith(".json"):
        command_line.fail(f"--out={FLAGS.out} must end in .json: beside it is a folder of that name, for statistics")
    if FLAGS.run_dir is None and not (FLAGS.samples and FLAGS.gin_file and FLAGS.out):
        command_line.fail("give --run_dir=R, or --samples=FILE.npz with --gin_file=F and --out=FILE.json")
    other = command_line.changes_the_run(FLAGS.gin_param) or FLAGS.samples
    if FLAGS.run_dir is not None and other and FLAGS.out is None:
        command_line.fail(
            "--gin_param and --samples measure something else than the run's generator as it was configured: give "
            "--out, so that its own generation.json stays"
        )
    command_line.import_tensorflow()
    from robgan_tf.data.files import write_json
    from robgan_tf.experiment import run
    from robgan_tf.generation.extractors import classifier_extractor
    from robgan_tf.pages.run_page import update_run_report
    from robgan_tf.run.directory import RunDirectory
    from robgan_tf.run.tensorboard import write_generation

    if FLAGS.run_dir is not None:
        experiment, run_directory = command_line.open_run()
    else:
        experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
        run_directory = RunDirectory(str(pathlib.Path(FLAGS.out).with_suffix("")))
    # Behind the experiment, which sets up the devices: that is too late once TensorFlow has loaded anything.
    extractors = command_line.or_fail(lambda: [classifier_extractor(folder) for folder in FLAGS.extractor])
    report = command_line.or_fail(lambda: run.evaluate_generator(experiment, run_directory, extractors, FLAGS.samples))
    out = pathlib.Path(FLAGS.out) if FLAGS.out else run_directory.generation
    write_json(out, report)
    print(f"wrote {out}")
    if not FLAGS.out:
        write_generation(run_directory.tensorboard, report)
        update_run_report(run_directory)


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_config_flags(values)
    command_line.define_path("run_dir", paths.user_path, "Folder of a run with a trained generator.", values)
    command_line.define_path(
        "samples", paths.user_path, "An .npz file of images to measure instead of the run's generator.", values
    )
    command_line.define_path(
        "extractor",
        paths.user_path,
        "Export or run whose classifier makes the features; repeatable.",
        values,
        multi=True,
    )
    command_line.define_path(
        "out", paths.file_to_write, "File for the scores; the run's generation.json if not given.", values
    )


def main():
    """Runs this command."""
    command_line.main(evaluate_generator, define_flags)


if __name__ == "__main__":
    main()
