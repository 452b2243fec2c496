"""Images of a run, as PNG, GIF or arrays: `python -m robgan_tf.sample --run_dir=R --out=grid.png --labels=0,3`.

--what=grid: generated images, a row for each class, a column for each noise vector.
--what=noise: from one noise vector to another, a row for each class; as .gif a loop.
--what=classes: from each class of --labels to the next one; as .gif a loop.
--what=attack: test images, clean and attacked, with the predicted classes; those that change class come first. Needs a
    finished run.
--what=samples: --count generated images of all classes, equally many, for `sample_file`: `images` uint8 [N, H, W, C]
    and `labels` int32 [N] in an .npz file.
"""

from __future__ import annotations

import os

from absl import flags

from robgan_tf import command_line, paths

FLAGS = flags.FLAGS
_ENDINGS = {
    "grid": (".png",),
    "noise": (".png", ".gif"),
    "classes": (".png", ".gif"),
    "attack": (".png",),
    "samples": (".npz",),
}
# Test images that --what=attack attacks, to show --columns of them.
_ATTACKED = 100


def sample():
    """Makes the file that the flags name, of a run that is finished or, but for attacks, still going on."""
    endings = _ENDINGS.get(FLAGS.what)
    if endings is None:
        command_line.fail(f"--what must be one of {', '.join(_ENDINGS)}; got {FLAGS.what!r}")
    ending = os.path.splitext(FLAGS.out or "")[1]
    if ending not in endings:
        allowed = " or ".join(endings)
        command_line.fail(f"--out must name a {allowed} file for --what={FLAGS.what}; got {FLAGS.out!r}")
    if not os.path.isdir(os.path.dirname(os.path.abspath(FLAGS.out))):
        command_line.fail(f"--out={FLAGS.out} is in a folder that does not exist: make it first")
    if FLAGS.columns < 1:
        command_line.fail(f"--columns must be 1 or more, got {FLAGS.columns}")
    if FLAGS.count < 1:
        command_line.fail(f"--count must be 1 or more, got {FLAGS.count}")
    if FLAGS.what == "samples" and FLAGS.labels:
        command_line.fail("--labels does not go with --what=samples, which has all classes")
    if not all(label.isdecimal() for label in FLAGS.labels):
        command_line.fail(f"--labels must be class numbers, e.g. --labels=0,3; got {','.join(FLAGS.labels)}")
    command_line.import_tensorflow()
    experiment, run_directory = command_line.open_run()
    names = experiment.data.class_names
    labels = [int(label) for label in FLAGS.labels]
    unknown = [str(label) for label in labels if label >= len(names)]
    if unknown:
        command_line.fail(f"--labels must be from 0 to {len(names) - 1}, got {', '.join(unknown)}")
    if FLAGS.what == "classes" and len(labels) == 1:
        command_line.fail(f"--what=classes needs two or more --labels, got {labels[0]}")
    make = {"attack": _attack, "samples": _samples}.get(FLAGS.what, _generated)
    command_line.or_fail(lambda: make(experiment, run_directory, labels))
    print(f"wrote {FLAGS.out}")


def _generated(experiment, run_directory, labels):
    from robgan_tf.experiment.restoring import restore_generator
    from robgan_tf.players import pictures, sampling

    generator, names = restore_generator(experiment, run_directory), experiment.data.class_names
    labels = labels or sampling.shown_labels(len(names)).tolist()
    settings = names, labels, FLAGS.columns, FLAGS.seed
    animated = FLAGS.out.endswith(".gif")
    if FLAGS.what == "classes":
        function = pictures.class_animation if animated else pictures.class_interpolation
        picture = function(generator, experiment.new_generator, *settings)
    elif FLAGS.what == "noise":
        picture = (pictures.noise_animation if animated else pictures.noise_interpolation)(generator, *settings)
    else:
        picture = pictures.generated_grid(generator, *settings)
    _write(lambda path: pictures.write_animation(picture, path) if animated else picture.save(path))


def _samples(experiment, run_directory, labels):
    from robgan_tf.experiment.restoring import restore_generator
    from robgan_tf.training.generated import write_samples

    write_samples(restore_generator(experiment, run_directory), FLAGS.out, FLAGS.count, FLAGS.seed)


def _attack(experiment, run_directory, labels):
    import numpy as np

    from robgan_tf.experiment.restoring import restore_classifier
    from robgan_tf.robustness.pairs import attack_pairs

    classifier, test = restore_classifier(experiment, run_directory), experiment.data.test
    if labels:
        test = test.select(np.flatnonzero(np.isin(test.labels, labels)))
    # More than are shown, so that some of them change class.
    examples = test.take(min(max(_ATTACKED, FLAGS.columns), len(test)), FLAGS.seed)
    attack, names = experiment.evaluation.attacks[0], experiment.data.class_names
    _write(attack_pairs(classifier, attack, examples, names, FLAGS.seed, shown=FLAGS.columns).save)


def _write(save):
    """Calls `save` with a path aside, with the same ending, and renames: no picture is seen half-written."""
    from robgan_tf.data.files import written_aside

    with written_aside(FLAGS.out) as partial:
        save(partial)


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    command_line.define_config_flags(values)
    command_line.define_path("run_dir", paths.user_path, "Folder of a run.", values)
    command_line.define_path("out", paths.file_to_write, "File to write, .png, .gif or .npz.", values)
    flags.DEFINE_string("what", "grid", f"What to make: {', '.join(_ENDINGS)}.", flag_values=values)
    flags.DEFINE_list("labels", [], "Classes to show, e.g. 0,3; ten of them if not given.", flag_values=values)
    flags.DEFINE_integer(
        "columns", 8, "Images of each class, steps of an interpolation, or attacked images.", flag_values=values
    )
    flags.DEFINE_integer("count", 10_000, "Images of --what=samples.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of noise, choice of images and attack.", flag_values=values)


def main():
    """Runs this command."""
    command_line.main(sample, define_flags)


if __name__ == "__main__":
    main()
