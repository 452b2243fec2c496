"""Image classification sets of tensorflow-datasets, and the handwritten digits of scikit-learn by the same way."""

from __future__ import annotations

import contextlib
import difflib
import pathlib
import tempfile

import gin
import numpy as np
import tensorflow_datasets as tfds

from robgan_tf.bindings import may_change
from robgan_tf.data.checksums import listing_checksum
from robgan_tf.data.datasets import (
    Examples,
    ImageData,
    check_image_size,
    check_memory,
    image_data,
    stratified_order,
)
from robgan_tf.data.description import whereabouts
from robgan_tf.data.expected import MissingDataError, may_prepare
from robgan_tf.data.names import first_line, some
from robgan_tf.data.sources.digits import is_prepared, prepared_digits, preparing
from robgan_tf.data.sources.hosts import check_hosts
from robgan_tf.data.sources.tfds_splits import ADVICE, read_split
from robgan_tf.paths import folder_to_write, user_path
from robgan_tf.values import checked, number, optional, switch, whole


@gin.configurable
@may_change("data_dir")
@checked(image_size=whole(1), validation_examples=whole(0), seed=whole(0), train_examples=optional(whole(1)))
def digits(
    data_dir: str | None = None,
    image_size: int = 16,
    validation_examples: int = 150,
    seed: int = 0,
    train_examples: int | None = None,
) -> ImageData:
    """scikit-learn's 8x8 handwritten digits, grey, enlarged to image_size; see `robgan_tf.data.sources.digits.Digits`.

    Args:
        data_dir: TFDS folder to keep the prepared data in; None is ~/tensorflow_datasets. No network is needed.
        image_size: side in pixels, resized bilinearly from 8.
        validation_examples: how many of the training images become the validation split.
        seed: of the choice of validation images.
        train_examples: how many of the 1,437 training images stay training images, those for validation among them;
            the others become test images beside the 360 that there are. None for all.

    Returns:
        ImageData with 10 classes and images [image_size, image_size, 1].

    Raises:
        ValueError: if a number is out of its range, or data_dir can't be written.
    """
    check_image_size("digits", image_size)
    elsewhere = contextlib.nullcontext(data_dir) if may_prepare() else tempfile.TemporaryDirectory()
    with elsewhere as folder:
        builder = prepared_digits(folder and folder_to_write(folder, "digits.data_dir"))
        train = read_split(builder, "train", "image", "label", image_size)
        test = read_split(builder, "test", "image", "label", image_size)
        if train_examples is not None:
            train, test = _fewer_to_train_on(train, test, train_examples)
        names = builder.info.features["label"].names
        return image_data("digits", names, train, test, validation_examples, seed, _fingerprint(builder))


def _fewer_to_train_on(train: Examples, test: Examples, count: int) -> tuple[Examples, Examples]:
    """Keeps `count` training images, always the same and stratified by class; the others become test images."""
    if count > len(train):
        raise ValueError(f"digits: train_examples must be within 1..{len(train)}, or None for all, got {count}.")
    mixed = stratified_order(train.labels, seed=0)
    kept, moved = train.select(np.sort(mixed[:count])), train.select(mixed[count:])
    images = np.concatenate([test.images, moved.images])
    return kept, Examples(images, np.concatenate([test.labels, moved.labels]))


@gin.configurable
@may_change("data_dir", "download", "memory_limit_gib")
@checked(
    image_size=optional(whole(1)),
    download=switch(),
    min_side=whole(0),
    validation_examples=whole(0),
    seed=whole(0),
    memory_limit_gib=number(above=0),
)
def tfds_images(
    name: str = gin.REQUIRED,
    image_size: int | None = None,
    data_dir: str | None = None,
    download: bool = False,
    train_split: str = "train",
    test_split: str = "test",
    class_range: tuple[int, int] | None = None,
    min_side: int = 0,
    validation_examples: int = 1000,
    seed: int = 0,
    memory_limit_gib: float = 8.0,
) -> ImageData:
    """Any image classification set of tensorflow-datasets, by name.

    Args:
        name: as in `tfds.load`, such as "cifar10" or "cifar10_corrupted/fog_1".
        image_size: side to which the centre square is resized (antialiased); None keeps images as they are, which
            needs a set whose images have one size.
        data_dir: TFDS folder; None is ~/tensorflow_datasets.
        download: whether to download and prepare the set if it is not in data_dir yet.
        train_split: TFDS split, slices such as "train[:10%]" included.
        test_split: the same; must not be train_split.
        class_range: first and last label to keep, both included; they become 0, 1, ... The paper's ImageNet-143 is
            (151, 293).
        min_side: drops images with a side under this many pixels (256 in SN-GAN's preparation of ImageNet).
        validation_examples: how many training images become the validation split.
        seed: of the choice of validation images.
        memory_limit_gib: refuses arrays larger than this (in training there is a second copy, in TensorFlow's memory).

    Returns:
        ImageData; images [image_size, image_size, C], or of the set's own size.

    Raises:
        ValueError: if the set is unknown, not prepared, not a classification set of uint8 images, too large, lacks
            labels, or a number is out of its range.
    """
    if image_size is not None:
        check_image_size("tfds_images", image_size)
    if train_split == test_split:
        raise ValueError(f"tfds_images: train_split and test_split are both {train_split!r}; they must not overlap.")
    data_dir = data_dir and user_path(data_dir, "tfds_images.data_dir")
    builder = _prepared_tfds_builder(name, data_dir, download)
    features = builder.info.features
    image_key, label_key = _image_and_label_keys(builder)
    image_feature, class_names = features[image_key], features[label_key].names
    shape = (image_size, image_size) if image_size else image_feature.shape[:2]
    if None in shape:
        raise ValueError(f"tfds_images: the images of {name!r} differ in size; set tfds_images.image_size, e.g. to 64.")
    if image_feature.shape[2] not in (1, 3) or image_feature.np_dtype != np.uint8:
        advice = f"{ADVICE}, which makes them RGB" if image_feature.np_dtype == np.uint8 else "choose another set"
        raise ValueError(
            f"tfds_images: the images of {name!r} are {np.dtype(image_feature.np_dtype)} {image_feature.shape}; they "
            f"must be uint8 of 1 (grey) or 3 (RGB) channels: {advice}."
        )
    if class_range is not None:
        first, last = class_range
        if not 0 <= first <= last < len(class_names):
            raise ValueError(
                f"tfds_images: class_range must be (first, last) within 0..{len(class_names) - 1}, got {class_range}."
            )
        class_names = class_names[first : last + 1]
    bytes_per_image = int(np.prod(shape)) * image_feature.shape[2]
    sizes = [_split_size(builder, split) for split in (train_split, test_split)]
    if class_range is None and not min_side:  # otherwise known only after reading
        check_memory("tfds_images", name, sum(sizes), bytes_per_image, memory_limit_gib, ADVICE)

    splits = []
    room = int(memory_limit_gib * 2**30)
    for split, size in zip((train_split, test_split), sizes):
        examples = read_split(
            builder, split, image_key, label_key, image_size, class_range, min_side, room // bytes_per_image, size
        )
        if not len(examples):
            raise ValueError(f"tfds_images: no image of split {split!r} of {name!r} is left; check the settings.")
        if examples.labels.min() < 0 or examples.labels.max() >= len(class_names):
            raise ValueError(
                f"tfds_images: split {split!r} of {name!r} has images without a label; "
                f"choose among {', '.join(builder.info.splits)}."
            )
        room -= len(examples) * bytes_per_image
        splits.append(examples)
    return image_data(name, class_names, *splits, validation_examples, seed, _fingerprint(builder))


def _fingerprint(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """Name and version of a prepared set, and the checksum of the names and sizes of its files."""
    files = (path for path in pathlib.Path(builder.data_path).iterdir() if ".tfrecord" in path.name)
    return {
        "tensorflow-datasets version": str(builder.info.full_name),
        "prepared files": listing_checksum((path.name, path.stat().st_size) for path in files),
    }


def _prepared_tfds_builder(name: str, data_dir: str | None, download: bool) -> tfds.core.DatasetBuilder:
    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        wanted = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        if wanted in known:
            raise ValueError(f"tfds_images: can't use {name!r}: {first_line(error)}") from error
        close = difflib.get_close_matches(wanted, known, n=4)
        hint = f"did you mean {', '.join(close)}?" if close else "tfds.list_builders() has the names."
        raise ValueError(f"tfds_images: tensorflow-datasets knows no {name!r}; {hint}") from error
    if is_prepared(builder):
        return builder
    folder = pathlib.Path(builder.data_dir_root)
    if download and not may_prepare():
        raise MissingDataError(
            f"tfds_images: {name!r} is not in {whereabouts(folder)}; the training downloads it (tfds_images.download)."
        )
    if not download:
        names = (path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
        prepared = [entry for entry in names if entry != "downloads" and not entry.startswith(".")]
        raise MissingDataError(
            f"tfds_images: {name!r} is not prepared in {whereabouts(folder)} (there: {some(prepared)}); "
            "set tfds_images.download = True to fetch it, or data_dir to where it is."
        )
    try:
        check_hosts(builder.url_infos)  # before a folder is made
        with preparing(folder):
            builder = tfds.builder(name, data_dir=data_dir)
            if not is_prepared(builder):  # another process may have been faster
                builder.download_and_prepare()
    except Exception as error:  # whatever went wrong outside: network, disk, checksum, files to be fetched by hand
        raise ValueError(
            f"tfds_images: {name!r} could not be downloaded and prepared in {folder}: {first_line(error)}"
        ) from error
    return builder


def _image_and_label_keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    features, keys = dict(builder.info.features.items()), builder.info.supervised_keys
    for image_key, label_key in (keys if keys and len(keys) == 2 else ("image", "label"), ("image", "label")):
        if (
            isinstance(image_key, str)
            and isinstance(label_key, str)
            and isinstance(features.get(image_key), tfds.features.Image)
            and isinstance(features.get(label_key), tfds.features.ClassLabel)
        ):
            return image_key, label_key
    raise ValueError(
        f"tfds_images: {builder.name!r} is not an image classification set: it has {', '.join(features)}, "
        "and one image with one class label is needed."
    )


def _split_size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    try:
        return builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"tfds_images: {builder.name!r} has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}."
        ) from error
