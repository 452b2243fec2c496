"""Writes a labelled grid of generated images: `python -m robgan_tf.sample --run_dir=R --out=grid.png --labels=0,3`."""

from __future__ import annotations

import os

from absl import flags

from robgan_tf import command_line

FLAGS = flags.FLAGS


def sample():
    """Samples from the run that the flags name, finished or not."""
    if not FLAGS.out or os.path.splitext(FLAGS.out)[1] != ".png":
        command_line.fail(f"--out must name a .png file, e.g. --out=grid.png; got {FLAGS.out!r}")
    if FLAGS.columns < 1:
        command_line.fail(f"--columns must be 1 or more, got {FLAGS.columns}")
    if not all(label.isdecimal() for label in FLAGS.labels):
        command_line.fail(f"--labels must be class numbers, e.g. --labels=0,3; got {','.join(FLAGS.labels)}")
    labels = [int(label) for label in FLAGS.labels] or None
    experiment, run_directory = command_line.open_run()

    def write():
        generator = experiment.restore_generator(run_directory)
        from robgan_tf.stages.samples import generated_grid

        generated_grid(generator, experiment.data.class_names, labels, FLAGS.columns, FLAGS.seed).save(FLAGS.out)

    command_line.or_fail(write)
    print(f"wrote {FLAGS.out}")


if __name__ == "__main__":
    command_line.define_config_flags()
    flags.DEFINE_string("run_dir", None, "Folder of a run.")
    flags.DEFINE_string("out", None, "PNG file to write.")
    flags.DEFINE_list("labels", [], "Classes to show, one row each, e.g. 0,3; ten of them if not given.")
    flags.DEFINE_integer("columns", 8, "Images of each class.")
    flags.DEFINE_integer("seed", 0, "Seed of the noise.")
    command_line.main(sample)
