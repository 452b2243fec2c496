"""Labelled images in memory, where they come from, and the batches made of them.

A split is held as uint8 arrays, and a training batch is a function of (seed, step) alone. There is no shuffle buffer
and no iterator state, so a run that was stopped continues at any step with the very batches it would have had.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import difflib
import functools
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import gin
import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from robgan_tf.data import preprocessing
from robgan_tf.data.digits import is_prepared, prepared_digits

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_READ_BATCH = 256
# Streams of random numbers drawn from one seed.
_SHUFFLE, _AUGMENT, _NOISE = 0, 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images of one split.

    Attributes:
        images: uint8 [N, H, W, C], 0..255.
        labels: int32 [N], class indices from 0.

    Raises:
        ValueError: if shapes or types are others.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, H, W, C], got {self.images.dtype} {list(self.images.shape)}.")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be int32 [{len(self.images)}], one for each image, "
                f"got {self.labels.dtype} {list(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, count: int, seed: int = 0) -> Examples:
        """A reproducible subset with the classes in the proportions of the whole, in mixed order.

        Args:
            count: how many examples; all of them, in stored order, if there are no more than that.
            seed: equal seeds give equal subsets, and a smaller subset is the beginning of a larger one.

        Returns:
            Examples with min(count, N) images.

        Raises:
            ValueError: if count is negative.
        """
        if count < 0:
            raise ValueError(f"Examples.take: count must be 0 or more, got {count}.")
        if count >= len(self):
            return self
        chosen = _stratified_order(self.labels, seed)[:count]
        return self.select(chosen)

    def select(self, chosen: np.ndarray) -> Examples:
        """The examples that `chosen`, a bool for each or an array of indices, names."""
        return Examples(self.images[chosen], self.labels[chosen])

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and labels as tensors in the host's memory, made once however many batch streams are drawn."""
        with tf.device("CPU:0"):  # or a split of several GiB would be copied to the first GPU
            return tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """An image classification data set in memory.

    Attributes:
        name: what messages and reports call it.
        class_names: one for each label.
        train: what is trained on; holds nothing of the other two.
        validation: cut from the training split, stratified by class; may be empty.
        test: the data set's own held-out split.
    """

    name: str
    class_names: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.train.images.shape[1:])


# ---------------------------------------------------------------------------------------------------------- batches


def training_batches(
    examples: Examples,
    batch_size: int,
    *,
    steps: int,
    first_step: int = 0,
    seed: int,
    augment: Sequence[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = (),
    noise: float = 0.0,
) -> tf.data.Dataset:
    """Batches for the steps first_step .. steps - 1, each a function of (seed, step) alone.

    Resuming is asking for a later first_step, and costs nothing. Each pass over the data is a new permutation and
    visits every example exactly once; a batch may hold the end of one pass and the beginning of the next, so nothing
    is dropped and every batch is full, even when it is larger than the split.

    Args:
        examples: what to draw from; stays in memory once, however many streams are drawn.
        batch_size: B, the global batch of all replicas.
        steps: the step at which to stop, counted from the beginning of the run, not from first_step.
        first_step: the first step to yield.
        seed: of the order, the augmentations and the noise.
        augment: functions (images [B, H, W, C] on 0..255, seed [2]) -> images of the same shape and scale, applied in
            this order; see `preprocessing`.
        noise: width of the uniform noise added at the end, on the scale of [-1, 1]; see `preprocessing.dequantise`.

    Returns:
        A dataset of (images float32 [B, H, W, C] in [-1, 1], labels int32 [B]), with static shapes.

    Raises:
        ValueError: if there are no examples, or a number is out of its range.
    """
    if not len(examples):
        raise ValueError("training_batches: there are no examples to draw from.")
    if batch_size < 1:
        raise ValueError(f"training_batches: batch_size must be 1 or more, got {batch_size}.")
    if not 0 <= first_step <= steps:
        raise ValueError(f"training_batches: needs 0 <= first_step <= steps, got {first_step} and {steps}.")
    if noise < 0:
        raise ValueError(f"training_batches: noise must be 0 or more, got {noise}.")
    images, labels = examples.tensors
    shape = (batch_size, *examples.images.shape[1:])

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        chosen = _shuffled_indices(step, batch_size, len(examples), seed)
        batch_images, batch_labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        augment_seed = _fold_in(_stream(seed, _AUGMENT), step)
        for position, function in enumerate(augment):
            batch_images = function(batch_images, _fold_in(augment_seed, position))
        batch_images = preprocessing.to_pixel_range(batch_images)
        batch_images = preprocessing.dequantise(batch_images, _fold_in(_stream(seed, _NOISE), step), noise)
        return tf.ensure_shape(batch_images, shape), tf.ensure_shape(batch_labels, shape[:1])

    dataset = tf.data.Dataset.range(first_step, steps)
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_batch_options()).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Every example exactly once, in stored order, without augmentation or noise.

    The last batch is filled up with copies of the first example, so that shapes are static and no replica is empty;
    the mask tells which rows count.

    Args:
        examples: what to evaluate on.
        batch_size: B, the global batch of all replicas.

    Returns:
        A dataset of (images float32 [B, H, W, C] in [-1, 1], labels int32 [B], mask float32 [B]: 1 for an example, 0
        for padding), with static shapes.

    Raises:
        ValueError: if there are no examples, or batch_size is not positive.
    """
    count = len(examples)
    if not count:
        raise ValueError("evaluation_batches: there are no examples to evaluate on.")
    if batch_size < 1:
        raise ValueError(f"evaluation_batches: batch_size must be 1 or more, got {batch_size}.")
    images, labels = examples.tensors
    shape = (batch_size, *examples.images.shape[1:])

    @tf.autograph.experimental.do_not_convert
    def batch(number):
        positions = number * batch_size + tf.range(batch_size, dtype=tf.int64)
        real = positions < count
        chosen = tf.where(real, positions, tf.zeros_like(positions))
        batch_images = preprocessing.to_pixel_range(tf.gather(images, chosen))
        return tf.ensure_shape(batch_images, shape), tf.gather(labels, chosen), tf.cast(real, tf.float32)

    dataset = tf.data.Dataset.range(-(-count // batch_size))
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_batch_options()).prefetch(tf.data.AUTOTUNE)


def _shuffled_indices(step: tf.Tensor, batch_size: int, count: int, seed: int) -> tf.Tensor:
    """int64 [batch_size]: which examples make up this step's batch."""
    first = step * batch_size
    positions = first + tf.range(batch_size, dtype=tf.int64)
    first_pass = first // count
    passes_in_batch = (batch_size - 1) // count + 2  # most passes over the data that one batch can touch
    # tf.random.experimental.index_shuffle would be the place to go, but in TensorFlow 2.15 it pads the wrong axis of a
    # batch of seeds, and its 4 rounds on raw seeds hardly shuffle: seeds (0, 0) and (0, 1) gave permutations of 50,000
    # that correlate by 0.72, and left 1,287 sorted by class nearly sorted. With hashed keys and 16 rounds neither
    # correlation nor class mix can be told from a random permutation's.
    keys = tf.stack(
        [
            tf.random.stateless_uniform([3], _fold_in(_stream(seed, _SHUFFLE), first_pass + i), None, None, tf.int32)
            for i in range(passes_in_batch)
        ]
    )
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % count,
        seed=tf.gather(keys, positions // count - first_pass),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=16,
    )


def _stream(seed: int, stream: int) -> tf.Tensor:
    return tf.constant([seed, stream], tf.int64)


def _fold_in(seed: tf.Tensor, number) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))


def _batch_options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Several workers: each makes all batches and keeps its share of every one, so a run on two workers sees the data of
    # a run on one. OFF would give each worker the same images; FILE has no files to divide.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


# ---------------------------------------------------------------------------------------------------------- sources


@gin.configurable
def digits(
    data_dir: str | None = None, image_size: int = 16, validation_examples: int = 150, seed: int = 0
) -> ImageData:
    """scikit-learn's 8x8 handwritten digits, grey, enlarged to image_size; see `robgan_tf.data.digits.Digits`.

    Args:
        data_dir: TFDS folder to keep the prepared data in; None is ~/tensorflow_datasets. No network is needed.
        image_size: side in pixels, resized bilinearly from 8.
        validation_examples: how many of the 1,437 training images become the validation split.
        seed: of the choice of validation images.

    Returns:
        ImageData with 10 classes and images [image_size, image_size, 1].

    Raises:
        ValueError: if a number is out of its range, or data_dir can't be written.
    """
    _check_image_size("digits", image_size)
    builder = prepared_digits(data_dir)
    train = _read_tfds_split(builder, "train", "image", "label", image_size)
    test = _read_tfds_split(builder, "test", "image", "label", image_size)
    return _image_data("digits", builder.info.features["label"].names, train, test, validation_examples, seed)


@gin.configurable
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
        _check_image_size("tfds_images", image_size)
    if train_split == test_split:
        raise ValueError(f"tfds_images: train_split and test_split are both {train_split!r}; they must not overlap.")
    builder = _prepared_tfds_builder(name, data_dir, download)
    features = builder.info.features
    image_key, label_key = _image_and_label_keys(builder)
    image_feature, class_names = features[image_key], features[label_key].names
    shape = (image_size, image_size) if image_size else image_feature.shape[:2]
    if None in shape:
        raise ValueError(f"tfds_images: the images of {name!r} differ in size; set tfds_images.image_size, e.g. to 64.")
    if image_feature.shape[2] is None or image_feature.np_dtype != np.uint8:
        raise ValueError(
            f"tfds_images: the images of {name!r} are {np.dtype(image_feature.np_dtype)} {image_feature.shape}; "
            "only uint8 images with a fixed number of channels can be used."
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
        _check_memory("tfds_images", name, sum(sizes), bytes_per_image, memory_limit_gib)

    splits = []
    room = int(memory_limit_gib * 2**30)
    for split, size in zip((train_split, test_split), sizes):
        examples = _read_tfds_split(
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
    return _image_data(name, class_names, *splits, validation_examples, seed)


@gin.configurable
def image_folder(
    data_dir: str = gin.REQUIRED,
    image_size: int = gin.REQUIRED,
    channels: int = 3,
    validation_examples: int = 500,
    max_corrupt_share: float = 0.01,
    memory_limit_gib: float = 8.0,
    seed: int = 0,
) -> ImageData:
    """A folder laid out like ImageNet: train/<class>/* and val/<class>/* (or test/ where there is no val/).

    Files are decoded by Pillow: first frame, EXIF orientation applied, transparency ignored (as TensorFlow's decoder
    does), centre square, resized with antialiasing. Files of other types and hidden ones are passed over.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey; files of any other mode are converted.
        validation_examples: how many images of train/ become the validation split; val/ is what ImageData calls test.
        max_corrupt_share: files that can't be decoded are named in a warning and left out; a split with a larger share
            of them is refused.
        memory_limit_gib: refuses to hold more than this.
        seed: of the choice of validation images.

    Returns:
        ImageData; class names are the sorted folder names of train/, images [image_size, image_size, channels].

    Raises:
        ValueError: if folders or images are missing, classes differ between the splits, too many files are corrupt,
            the images are too large for memory, or a number is out of its range.
    """
    _check_image_size("image_folder", image_size)
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels must be 3 (RGB) or 1 (grey), got {channels}.")
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise ValueError(f"image_folder: there is no folder {root}; data_dir must hold train/<class>/ and val/<class>/")
    held_out = root / "test" if (root / "test").is_dir() and not (root / "val").is_dir() else root / "val"
    train_files, test_files = _class_files(root / "train"), _class_files(held_out)
    class_names = sorted(train_files)
    if set(class_names) != set(test_files):
        raise ValueError(
            f"image_folder: classes differ between {root / 'train'} and {held_out}: "
            f"only in train: {_some(set(train_files) - set(test_files))}; "
            f"only in {held_out.name}: {_some(set(test_files) - set(train_files))}; make the folder names equal."
        )
    count = sum(map(len, itertools.chain(train_files.values(), test_files.values())))
    _check_memory("image_folder", str(root), count, image_size * image_size * channels, memory_limit_gib)
    train = _read_folder(root / "train", class_names, train_files, image_size, channels, max_corrupt_share)
    test = _read_folder(held_out, class_names, test_files, image_size, channels, max_corrupt_share)
    return _image_data(root.name, class_names, train, test, validation_examples, seed)


def _image_data(
    name: str, class_names: Sequence[str], train: Examples, test: Examples, validation_examples: int, seed: int
) -> ImageData:
    """Moves validation_examples from train to a split of their own. Overwrites the arrays of `train`."""
    if not 0 <= validation_examples < len(train):
        raise ValueError(
            f"{name}: validation_examples must be 0 or more and leave something of the {len(train)} training images, "
            f"got {validation_examples}."
        )
    order = _stratified_order(train.labels, seed)
    validation = Examples(train.images[order[:validation_examples]], train.labels[order[:validation_examples]])
    kept = np.sort(order[validation_examples:])
    # In place, a piece at a time: train.images[kept] would hold the split in memory twice. A row only ever moves
    # forward (kept[i] >= i), so nothing is overwritten before it was read.
    for start in range(0, len(kept), _READ_BATCH):
        piece = kept[start : start + _READ_BATCH]
        train.images[start : start + len(piece)] = train.images[piece]
        train.labels[start : start + len(piece)] = train.labels[piece]
    train = Examples(train.images[: len(kept)], train.labels[: len(kept)])
    return ImageData(name, tuple(class_names), train, validation, test)


def _stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of all examples in which every beginning has the classes in the proportions of the whole."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Spread each class evenly over (0, 1) and walk from 0 to 1, random where classes meet.
    position = (rank + 0.5) / np.repeat(sizes, sizes)
    return by_class[np.lexsort((random.random(len(labels)), position))]


def _check_image_size(source: str, image_size: int) -> None:
    if image_size < 1:
        raise ValueError(f"{source}: image_size must be 1 pixel or more, got {image_size}.")


def _check_memory(source: str, name: str, count: int, bytes_per_image: int, limit_gib: float) -> None:
    needed = count * bytes_per_image / 2**30
    if needed > limit_gib:
        raise ValueError(
            f"{source}: the {count} images of {name} need {needed:.3g} GiB of memory, over {source}.memory_limit_gib = "
            f"{limit_gib:.3g}; use a smaller image_size, fewer images, or raise the limit."
        )


def _some(names) -> str:
    """At most three names, for a message."""
    names = sorted(names)
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"


def _with_progress(items: Iterator, what: str, total: int | None, size: Callable = lambda item: 1) -> Iterator:
    """Passes items on, and logs count, rate and time left every ten seconds."""
    start = logged = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - logged > 10:
            logged = now
            rate = done / (now - start)
            left = f" of {total}, {(total - done) / rate:.0f} s left" if total else ""
            logging.info("reading %s: %d images, %.0f a second%s", what, done, rate, left)


# ------------------------------------------------------------------------------------------------ tensorflow-datasets


def _prepared_tfds_builder(name: str, data_dir: str | None, download: bool) -> tfds.core.DatasetBuilder:
    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        wanted = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        if wanted in known:
            raise ValueError(f"tfds_images: can't use {name!r}: {_first_line(error)}") from error
        close = difflib.get_close_matches(wanted, known, n=4)
        hint = f"did you mean {', '.join(close)}?" if close else "tfds.list_builders() has the names."
        raise ValueError(f"tfds_images: tensorflow-datasets knows no {name!r}; {hint}") from error
    if is_prepared(builder):
        return builder
    folder = pathlib.Path(builder.data_dir_root)
    if not download:
        names = (path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
        prepared = [entry for entry in names if entry != "downloads" and not entry.startswith(".")]
        raise ValueError(
            f"tfds_images: {name!r} is not prepared in {folder} (there: {_some(prepared)}); "
            "set tfds_images.download = True to fetch it, or data_dir to where it is."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever went wrong outside: network, disk, checksum, files to be fetched by hand
        raise ValueError(
            f"tfds_images: {name!r} could not be downloaded and prepared in {folder}: {_first_line(error)}"
        ) from error
    return builder


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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


def _read_tfds_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_key: str,
    label_key: str,
    image_size: int | None,
    class_range: tuple[int, int] | None = None,
    min_side: int = 0,
    most_images: int | None = None,
    total: int | None = None,
) -> Examples:
    feature = builder.info.features[image_key]
    decoders = {image_key: tfds.decode.SkipDecoding()}  # decoded below, after the filter
    dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    dataset = dataset.map(lambda example: (example[image_key], example[label_key]))
    first_class = 0
    if class_range is not None:
        # Before decoding: one ImageNet class in seven is wanted for ImageNet-143.
        first_class, last_class = class_range
        dataset = dataset.filter(lambda image, label: (label >= first_class) & (label <= last_class))

    @tf.autograph.experimental.do_not_convert
    def decode(encoded, label):
        image = feature.decode_example(encoded)
        large_enough = tf.reduce_min(tf.shape(image)[:2]) >= min_side
        # Resizing here and dropping later keeps all work in the one parallel map.
        if image_size is not None and feature.shape[:2] != (image_size, image_size):
            image = preprocessing.centre_square(image, image_size)
        return image, tf.cast(label, tf.int32) - first_class, large_enough

    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if min_side:
        dataset = dataset.filter(lambda image, label, large_enough: large_enough)
    dataset = dataset.batch(_READ_BATCH).prefetch(2)
    filtered = class_range is not None or min_side
    batches = _with_progress(
        dataset.as_numpy_iterator(), f"{builder.name} {split}", None if filtered else total, lambda item: len(item[1])
    )
    pieces, labels, count = [], [np.zeros([0], np.int32)], 0
    for batch_images, batch_labels, _ in batches:
        count += len(batch_labels)
        if most_images is not None and count > most_images:
            raise ValueError(
                f"tfds_images: split {split!r} of {builder.name!r} does not fit in tfds_images.memory_limit_gib; "
                "use a smaller image_size, fewer classes, or raise the limit."
            )
        pieces.append(batch_images)
        labels.append(batch_labels)
    return Examples(_joined(pieces, feature.shape[2]), np.concatenate(labels))


def _joined(pieces: list[np.ndarray], channels: int) -> np.ndarray:
    """np.concatenate that frees each piece as it goes, so a split is in memory once."""
    if not pieces:
        return np.zeros([0, 1, 1, channels], np.uint8)
    joined = np.empty([sum(map(len, pieces)), *pieces[0].shape[1:]], np.uint8)
    end = len(joined)
    while pieces:
        piece = pieces.pop()
        joined[end - len(piece) : end] = piece
        end -= len(piece)
    return joined


# ------------------------------------------------------------------------------------------------------ image folders


def _class_files(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Image files by class, both sorted by name."""
    if not folder.is_dir():
        raise ValueError(f"image_folder: there is no folder {folder}; expected {folder}/<class>/*.jpg (or .png, ...).")
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        found = "images, but no class folders" if any(map(_is_image, entries)) else "no class folders"
        raise ValueError(f"image_folder: {folder} holds {found}; sort the images into {folder}/<class>/.")
    files = {entry.name: sorted(filter(_is_image, entry.iterdir())) for entry in classes}
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise ValueError(
            f"image_folder: no images in {_some(empty)} of {folder}; expected files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}; add some or remove the folder."
        )
    return files


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_folder(
    folder: pathlib.Path,
    class_names: Sequence[str],
    files: dict[str, list[pathlib.Path]],
    image_size: int,
    channels: int,
    max_corrupt_share: float,
) -> Examples:
    paths = [path for name in class_names for path in files[name]]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), [len(files[name]) for name in class_names])
    images = np.empty([len(paths), image_size, image_size, channels], np.uint8)

    def read(index: int) -> str | None:
        try:
            images[index] = _decoded(paths[index], image_size, channels)
            return None
        # What Pillow raises on broken files, by format: SyntaxError on PNG chunks, ValueError and EOFError on GIF.
        except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
            return f"{paths[index]} ({_first_line(error)})"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of the GIL
        results = list(_with_progress(pool.map(read, range(len(paths))), str(folder), len(paths)))
    readable = np.array([message is None for message in results])
    corrupt = [message for message in results if message is not None]
    if len(corrupt) > max_corrupt_share * len(paths):
        raise ValueError(
            f"image_folder: {len(corrupt)} of {len(paths)} images in {folder} can't be decoded, over max_corrupt_share "
            f"= {max_corrupt_share}: {_some(corrupt)}; replace or remove them, or raise the share."
        )
    if corrupt:
        logging.warning(
            "image_folder: left out %d of %d images in %s that can't be decoded: %s",
            len(corrupt),
            len(paths),
            folder,
            "; ".join(corrupt),
        )
        missing = set(range(len(class_names))) - set(labels[readable].tolist())
        if missing:
            raise ValueError(
                f"image_folder: every image of {_some(class_names[i] for i in missing)} in {folder} is corrupt."
            )
        images, labels = images[readable], labels[readable]
    return Examples(images, labels)


def _decoded(path: pathlib.Path, image_size: int, channels: int) -> np.ndarray:
    """uint8 [image_size, image_size, channels] of one file."""
    with PIL.Image.open(path) as file:
        image = PIL.ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255 instead of scaling
            image = PIL.Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # the way Pillow asks for, in a warning otherwise
        image = image.convert("RGB" if channels == 3 else "L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((image_size, image_size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels)
