"""Prepared image records: TFRecords of JPEGs with a manifest, as `python -m robgan_tf.prepare` writes them.

The training split stays on disk and is read as a stream (`record_stream`); validation and test are decoded into memory.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

import gin
import numpy as np
from absl import logging

from robgan_tf.bindings import may_change
from robgan_tf.data.checksums import listing_checksum
from robgan_tf.data.datasets import Examples, ImageData, check_memory
from robgan_tf.data.description import whereabouts
from robgan_tf.data.expected import MissingDataError
from robgan_tf.data.names import some
from robgan_tf.data.sources.dataset_manifest import FILE_NAME, DatasetManifest
from robgan_tf.data.sources.record_stream import Records
from robgan_tf.paths import user_path
from robgan_tf.values import checked, number, optional, switch, whole


@gin.configurable
@may_change("data_dir", "image_size", "num_classes", "class_names", "verify", "memory_limit_gib")
@checked(
    image_size=optional(whole(1)),
    num_classes=optional(whole(1)),
    validation_examples=optional(whole(0)),
    shuffle_buffer=whole(1),
    verify=switch(),
    memory_limit_gib=number(above=0),
    seed=whole(0),
)
def tfrecord_images(
    data_dir: str = gin.REQUIRED,
    image_size: int | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    validation_examples: int | None = None,
    shuffle_buffer: int = 16384,
    verify: bool = True,
    memory_limit_gib: float = 8.0,
    seed: int = 0,
) -> ImageData:
    """A folder of image records that `python -m robgan_tf.prepare` made.

    Size, classes and their names come from the folder's manifest. What is given here in addition is compared with it,
    so that a run that was set up for one preparation does not train on another.

    Args:
        data_dir: the folder that holds manifest.json and the shards.
        image_size: expected side of the images in pixels; None for any.
        num_classes: expected number of classes; None for any.
        class_names: expected names, in the order of the labels; None for any.
        channels: 3 for RGB, 1 for grey.
        validation_examples: how many images of the validation split to use, stratified by class; None for all.
        shuffle_buffer: encoded training images that are shuffled at once; see `Records`.
        verify: whether to compare the checksums of all shards, too, which reads them once; their existence and size
            are always compared.
        memory_limit_gib: refuses validation and test images larger than this, in memory.
        seed: of the choice of validation images.

    Returns:
        ImageData whose training split is `Records`, images [image_size, image_size, channels].

    Raises:
        ValueError: if the folder is not a finished preparation, differs from what is expected, is damaged, lacks
            validation images that are asked for, is too large for memory, or a number is out of its range.
    """
    if channels not in (1, 3):
        raise ValueError(f"tfrecord_images: channels must be 3 (RGB) or 1 (grey), got {channels}.")
    root = pathlib.Path(user_path(data_dir, "tfrecord_images.data_dir"))
    if not root.is_dir():
        raise MissingDataError(
            f"tfrecord_images: there is no folder {whereabouts(root)}; give one that python -m robgan_tf.prepare made."
        )
    root = root.resolve()
    try:
        manifest = DatasetManifest.read(root)
    except ValueError as error:
        kind = ValueError if (root / FILE_NAME).exists() else MissingDataError
        raise kind(f"tfrecord_images: {error}") from error
    _check_expectations(root, manifest, image_size, num_classes, class_names)
    wanted = _validation_count(root, manifest, validation_examples)
    held = wanted + manifest.splits["test"].examples
    bytes_per_image = manifest.image_size**2 * channels
    check_memory("tfrecord_images", f"validation and test of {root}", held, bytes_per_image, memory_limit_gib)

    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    logging.info(
        "checking %d shards of %s, %.3g GiB%s",
        len(shards),
        root,
        sum(shard.bytes for shard in shards) / 2**30,
        "" if verify else " (existence and size alone)",
    )
    damaged = manifest.damaged_shards(root, checksums=verify)
    if damaged:
        raise ValueError(
            f"tfrecord_images: {len(damaged)} of {len(shards)} shards in {root} are damaged: {some(damaged)}; copy or "
            "prepare them again."
        )
    splits = {
        name: Records(
            tuple(str(root / shard.name) for shard in split.shards),
            split.class_counts,
            manifest.image_size,
            channels,
            shuffle_buffer,
        )
        for name, split in manifest.splits.items()
    }
    if wanted:
        validation = splits["validation"].take(wanted, seed)
    else:
        empty = np.zeros([0, *splits["train"].image_shape], np.uint8)
        validation = Examples(empty, np.zeros([0], np.int32))
    fingerprint = {
        name: listing_checksum((f"{shard.name} {shard.sha256}", shard.bytes) for shard in split.shards)
        for name, split in manifest.splits.items()
    }
    return ImageData(root.name, manifest.class_names, splits["train"], validation, splits["test"].read(), fingerprint)


def _check_expectations(
    root: pathlib.Path,
    manifest: DatasetManifest,
    image_size: int | None,
    num_classes: int | None,
    class_names: Sequence[str] | None,
):
    """Raises ValueError where the manifest has other images or classes than expected, or nothing to train or test on.

    What is None is not compared.
    """
    advice = f"prepare the images anew with python -m robgan_tf.prepare, or set tfrecord_images to what {root} holds"
    if image_size is not None and image_size != manifest.image_size:
        raise ValueError(
            f"tfrecord_images: image_size is {image_size}, the records of {root} have {manifest.image_size}; {advice}."
        )
    held = manifest.class_names
    if num_classes is not None and num_classes != len(held):
        raise ValueError(
            f"tfrecord_images: num_classes is {num_classes}, the records of {root} have {len(held)}; {advice}."
        )
    if class_names is not None:
        for label, (expected, found) in enumerate(itertools.zip_longest(class_names, held)):
            if expected != found:
                raise ValueError(
                    f"tfrecord_images: class_names differ from those of {root}, first at label {label}: expected "
                    f"{expected!r}, found {found!r}; {advice}."
                )
    for name in ("train", "test"):
        if name not in manifest.splits or not manifest.splits[name].examples:
            raise ValueError(
                f"tfrecord_images: {root} holds no {name} images; prepare it with python -m robgan_tf.prepare."
            )
    without = [name for name, count in zip(manifest.class_names, manifest.splits["train"].class_counts) if not count]
    if without:
        raise ValueError(
            f"tfrecord_images: {root} holds no training image of {some(without)}; prepare it without these classes."
        )


def _validation_count(root: pathlib.Path, manifest: DatasetManifest, validation_examples: int | None) -> int:
    """How many validation images to use."""
    split = manifest.splits.get("validation")
    held = split.examples if split else 0
    if validation_examples is None:
        if not held:
            logging.warning(
                "tfrecord_images: %s holds no validation images, which fine-tuning needs; python -m robgan_tf.prepare "
                "cuts them from the training images",
                root,
            )
        return held
    if not 0 <= validation_examples <= held:
        raise ValueError(
            f"tfrecord_images: validation_examples must be within 0..{held}, the validation images of {root}, got "
            f"{validation_examples}; python -m robgan_tf.prepare cuts them from the training images."
        )
    return validation_examples
