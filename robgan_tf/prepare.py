"""Writes an ImageNet-style folder, or a TFDS set, as TFRecords of small square JPEGs.

    python -m robgan_tf.prepare --source=/data/imagenet --out=/data/imagenet143_64 --image_size=64

The default is the paper's ImageNet-143: classes 151 to 293, images with a side under 256 px left out. The same command
goes on where it stopped.

    python -m robgan_tf.prepare --samples=1m.npz --classifier=EXPORT --most_confident=50000 --out=chosen.npz

makes one file for `sample_file` of .npz files of generated images from elsewhere: unpacked and joined, labelled by a
classifier where there are no labels, and of each class only those images that it is surest of.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Callable

from absl import flags

from robgan_tf import command_line, paths
from robgan_tf.data.preparation.report import compared_with_sngan, report
from robgan_tf.data.preparation.sources import Folder, Source, TfdsSet
from robgan_tf.data.preparation.writing import IMAGENET_143, Settings, prepare, verify
from robgan_tf.data.sources.pillow_images import Filter

# No TensorFlow here: every worker process imports this file again.

FLAGS = flags.FLAGS


def _source() -> Source:
    if bool(FLAGS.source) == bool(FLAGS.tfds):
        raise ValueError("give either --source=FOLDER or --tfds=NAME, such as --source=/data/imagenet")
    if FLAGS.test_split == "train":
        raise ValueError("--test_split=train is what is trained on; name a held-out folder or split")
    if FLAGS.tfds:
        return TfdsSet(FLAGS.tfds, FLAGS.tfds_dir, FLAGS.test_split)
    folder = Folder(FLAGS.source, FLAGS.test_split)
    out = pathlib.Path(FLAGS.out).expanduser().resolve()
    if {out, *out.parents} & set(folder.folders.values()):
        raise ValueError(f"--out={FLAGS.out} is within the images of --source={FLAGS.source}; choose another folder")
    return folder


def _samples() -> str:
    """Does what the flags say of files of generated images; returns a line for each class and one of all."""
    from robgan_tf.data.preparation.samples import prepare_samples

    if FLAGS.source or FLAGS.tfds:
        raise ValueError("--samples does not go with --source and --tfds: it takes .npz files")
    if FLAGS.verify:
        raise ValueError("--verify does not go with --samples: it checks a folder of records")
    logits = _logits(FLAGS.classifier) if FLAGS.classifier else None
    written = prepare_samples(FLAGS.samples, FLAGS.out, logits, FLAGS.most_confident)
    lines = [f"class {label}: {count:,} images" for label, count in enumerate(written.counts)]
    last = f"wrote {FLAGS.out}: {sum(written.counts):,} images"
    if written.confidence is not None:
        lowest, highest = (f"{share:.1%}" for share in written.confidence)
        last += (
            f", {written.predicted:,} of them labelled by the classifier; it gives their labels {lowest} to {highest}"
        )
    return "\n".join([*lines, last])


def _logits(directory: str) -> Callable:
    """The classifier of a SavedModel, images uint8 [B, H, W, C] -> logits [B, K]."""
    command_line.import_tensorflow()
    import tensorflow as tf

    from robgan_tf.data.preprocessing import to_pixel_range
    from robgan_tf.serving.loading import load_logits

    load = load_logits(directory)

    def logits(images):
        try:
            return load(to_pixel_range(tf.constant(images))).numpy()
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise ValueError(
                f"--classifier={directory} takes no images of {'x'.join(map(str, images.shape[1:]))}: "
                f"{command_line.one_line(error)}"
            ) from error

    return logits


def command():
    """Does what the flags say."""
    try:
        if not FLAGS.out:
            raise ValueError("--out is missing, the folder to write to, such as --out=/data/imagenet143_64")
        if FLAGS.samples:
            paths.file_to_write(FLAGS.out, "--out")
            print(_samples())
            return
        paths.folder_to_write(FLAGS.out, "--out")
        if FLAGS.classifier or FLAGS.most_confident:
            raise ValueError("--classifier and --most_confident go with --samples=FILE.npz")
        if FLAGS.verify:
            print(verify(FLAGS.out))
            return
        settings = Settings(**{field.name: FLAGS[field.name].value for field in dataclasses.fields(Settings)})
        source = _source()
        manifest = prepare(source, FLAGS.out, settings, FLAGS.processes, FLAGS.max_corrupt_share)
        print(report(manifest))
        for remark in source.remarks():
            print(remark)
        if (settings.classes, settings.min_side, len(source.classes)) == (IMAGENET_143, 256, 1000):
            print(compared_with_sngan(manifest))
    except (ValueError, OSError) as error:
        command_line.fail(command_line.one_line(error))
    except (KeyboardInterrupt, BrokenProcessPool) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "a worker process was killed (memory?)"
        sys.exit(f"stopped: {reason}; the same command goes on from there.")


def define_flags(values: flags.FlagValues):
    """Defines the flags of this command."""
    filters = [name.lower() for name in Filter.__members__ if name != "NEAREST"]
    command_line.define_path(
        "source", paths.local_path, "Folder with train/<class>/* and val/<class>/* (or test/).", values
    )
    flags.DEFINE_string(
        "tfds", None, "Instead of --source: a prepared TFDS image classification set, by name.", flag_values=values
    )
    command_line.define_path("tfds_dir", paths.user_path, "TFDS folder; ~/tensorflow_datasets if not given.", values)
    flags.DEFINE_string(
        "test_split", None, "Held-out folder or split; val (TFDS: validation), else test.", flag_values=values
    )
    command_line.define_path(
        "out",
        paths.user_path,
        "Folder to write to; goes on with what it holds of the same preparation. With --samples the .npz file.",
        values,
    )
    command_line.define_path(
        "samples",
        paths.local_path,
        "Instead of --source: .npz files of generated images, `image` and `label`; several one behind the other.",
        values,
        multi=True,
    )
    command_line.define_path(
        "classifier",
        paths.user_path,
        "SavedModel that labels --samples without labels, or tells how sure it is.",
        values,
    )
    flags.DEFINE_integer(
        "most_confident", None, "Of --samples: images of each class to keep.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "image_size", Settings.image_size, "Side of the images, in pixels.", lower_bound=8, flag_values=values
    )
    flags.DEFINE_string(
        "classes", IMAGENET_143, "all, first:last (both included), names with commas, or @file.", flag_values=values
    )
    flags.DEFINE_string(
        "class_names", None, "File of readable names, lines 'n01440764 tench, Tinca tinca'.", flag_values=values
    )
    flags.DEFINE_integer(
        "min_side", Settings.min_side, "Leaves out images with a smaller side (px).", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer("quality", Settings.quality, "Of the JPEGs.", 1, 100, flag_values=values)
    flags.DEFINE_enum("filter", Settings.filter, filters, "Of resizing.", flag_values=values)
    flags.DEFINE_integer(
        "validation_per_class",
        Settings.validation_per_class,
        "Training images moved to a split of their own.",
        0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "shards", Settings.shards, "Of the training split; 0 for files of 96 MiB, at least 16.", 0, flag_values=values
    )
    flags.DEFINE_integer(
        "seed", Settings.seed, "Of the order and the validation images.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "processes", None, "Worker processes; one for each core if not given.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "max_corrupt_share", 0.001, "Largest share of images that may be undecodable.", 0, 1, flag_values=values
    )
    flags.DEFINE_bool("verify", False, "Only check the finished folder --out against its manifest.", flag_values=values)


def main():
    """Runs this command."""
    command_line.main(command, define_flags)


if __name__ == "__main__":
    main()
