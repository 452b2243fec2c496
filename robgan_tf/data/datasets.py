"""Labelled images, and what every source of them needs: the validation cut, checks, progress.

Validation and test are held as uint8 arrays, and so is the training split unless it is too large. The sources are in
`tfds_images`, `image_folder` and `records`, the batches in `batches`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from robgan_tf.data import order
from robgan_tf.data.names import some
from robgan_tf.time_left import TimeLeft

# Images that are read or moved at once.
READ_BATCH = 256


class TrainingSplit(abc.ABC):
    """What is trained on: labelled images, in memory or not, that batches are drawn from."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""

    def counts(self, num_classes: int) -> list[int]:
        """Number of images of each class. This one is for splits that have `labels`, int [N]."""
        return np.bincount(self.labels, minlength=num_classes).tolist()

    @abc.abstractmethod
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

    @abc.abstractmethod
    def raw_batches(self, batch_size: int, *, first_step: int, steps: int, seed: int, rows: range) -> tf.data.Dataset:
        """The stored images for the steps first_step .. steps - 1, each batch a function of (seed, step) alone.

        Step s takes the images s * batch_size .. (s + 1) * batch_size - 1 of an endless stream, in which every pass
        over the split has another order and holds every image exactly once.

        Args:
            batch_size: B, the global batch.
            first_step: the first step to yield.
            steps: the step at which to stop.
            seed: of the order.
            rows: which rows of each batch to yield, within range(B), in steps of 1.

        Returns:
            A dataset of (images uint8 [len(rows), H, W, C], labels int32 [len(rows)]), of steps - first_step elements.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Examples(TrainingSplit):
    """Labelled images of one split, in memory.

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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    def take(self, count: int, seed: int = 0) -> Examples:
        check_count("Examples", count)
        if count >= len(self):
            return self
        return self.select(stratified_order(self.labels, seed)[:count])

    def raw_batches(self, batch_size: int, *, first_step: int, steps: int, seed: int, rows: range) -> tf.data.Dataset:
        @tf.autograph.experimental.do_not_convert
        def batch(step):
            return self.gather(order.shuffled_indices(step, batch_size, rows, len(self), seed))

        dataset = tf.data.Dataset.range(first_step, steps)
        return dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def gather(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images uint8 [B, H, W, C] and labels int32 [B] of `rows`, integers [B], also within a graph."""
        images, labels = self.tensors
        return tf.gather(images, rows), tf.gather(labels, rows)

    def select(self, chosen: np.ndarray) -> Examples:
        """The examples that `chosen`, a bool for each or an array of indices, names."""
        return Examples(self.images[chosen], self.labels[chosen])

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and labels as tensors in the host's memory, made once however many batch streams are drawn."""
        # Not within a graph that is being traced. On the first GPU a split of several GiB would be copied to it.
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """An image classification data set.

    Attributes:
        name: what messages and reports call it.
        class_names: one for each label.
        train: what is trained on; holds nothing of the other two.
        validation: cut from the training split, stratified by class; may be empty.
        test: the data set's own held-out split.
        fingerprint: checksums of what was read, by names for messages, such as "train/<class>", see
            `robgan_tf.data.description`; equal for a copy elsewhere. None: the images in memory are summed up.
    """

    name: str
    class_names: tuple[str, ...]
    train: TrainingSplit
    validation: Examples
    test: Examples
    fingerprint: Mapping[str, str] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape

    @property
    def splits(self) -> dict[str, TrainingSplit]:
        """The three splits by name, "train", "validation" and "test"."""
        return {name: getattr(self, name) for name in ("train", "validation", "test")}


def image_data(
    name: str,
    class_names: Sequence[str],
    train: Examples,
    test: Examples,
    validation_examples: int,
    seed: int,
    fingerprint: Mapping[str, str] | None = None,
) -> ImageData:
    """Moves validation_examples, stratified by class, from train to a split of their own.

    Args:
        name: of the data set.
        class_names: one for each label.
        train: the whole training split; its arrays are overwritten.
        test: the held-out split, passed on as it is.
        validation_examples: how many examples to move.
        seed: of the choice of validation images.
        fingerprint: see `ImageData`.

    Raises:
        ValueError: if validation_examples is negative, or leaves nothing to train on.
    """
    chosen, kept = validation_cut(name, class_names, train.labels, validation_examples, seed)
    validation = train.select(chosen)
    # In place, a piece at a time: train.images[kept] would hold the split in memory twice. A row only ever moves
    # forward (kept[i] >= i), so nothing is overwritten before it was read.
    for start in range(0, len(kept), READ_BATCH):
        piece = kept[start : start + READ_BATCH]
        train.images[start : start + len(piece)] = train.images[piece]
        train.labels[start : start + len(piece)] = train.labels[piece]
    train = Examples(train.images[: len(kept)], train.labels[: len(kept)])
    return ImageData(name, tuple(class_names), train, validation, test, fingerprint)


def validation_cut(
    name: str, class_names: Sequence[str], labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses `count` of the training images for validation, stratified by class.

    Args:
        name: of the data set, for messages.
        class_names: one for each label.
        labels: int32 [N], of the training images.
        count: how many to choose.
        seed: of the choice.

    Returns:
        Indices of the chosen images, in mixed order, and of the others, in rising order.

    Raises:
        ValueError: if count is negative, or leaves a class without an image to train on.
    """
    mixed = stratified_order(labels, seed)
    last = np.full([len(class_names)], -1)
    last[labels[mixed]] = np.arange(len(labels))  # of several equal labels the last one counts
    if last.min() < 0:
        without = some(class_names[label] for label in np.flatnonzero(last < 0))
        raise ValueError(f"{name}: there is no training image of {without}; add some or leave the class out.")
    if not 0 <= count <= last.min():
        emptied = some(class_names[label] for label in np.flatnonzero(last < count))
        taken = f", which takes all of {emptied}" if count > 0 else ""
        raise ValueError(
            f"{name}: validation_examples must be within 0..{last.min()}, so that of the {len(labels)} training images "
            f"each class keeps one, got {count}{taken}."
        )
    return mixed[:count], np.sort(mixed[count:])


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of all examples in which every beginning has the classes in the proportions of the whole."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Spread each class evenly over (0, 1) and walk from 0 to 1, random where classes meet.
    position = (rank + 0.5) / np.repeat(sizes, sizes)
    return by_class[np.lexsort((random.random(len(labels)), position))]


def check_image_size(source: str, image_size: int) -> None:
    """Raises ValueError, in the name of the configurable `source`, if a side of image_size pixels is no image."""
    if image_size < 1:
        raise ValueError(f"{source}: image_size must be 1 pixel or more, got {image_size}.")


def check_count(source: str, count: int) -> None:
    """Raises ValueError, in the name of the class `source`, if `count` is no number of images to take."""
    if count < 0:
        raise ValueError(f"{source}.take: count must be 0 or more, got {count}.")


def check_memory(
    source: str, name: str, count: int, bytes_per_image: int, limit_gib: float, advice: str = "use fewer images"
) -> None:
    """Raises ValueError, in the name of the configurable `source`, if `count` images need more than limit_gib GiB.

    `advice` says what to do besides raising the limit.
    """
    needed = count * bytes_per_image / 2**30
    if needed > limit_gib:
        raise ValueError(
            f"{source}: the {count} images of {name} need {needed:.3g} GiB of memory, over {source}.memory_limit_gib = "
            f"{limit_gib:.3g}; {advice}, use a smaller image_size, or raise the limit."
        )


def with_progress(items: Iterator, what: str, total: int | None, size: Callable = lambda item: 1) -> Iterator:
    """Passes the same items on, and logs count, rate and time left every ten seconds.

    Args:
        items: what is read.
        what: its name in the log.
        total: how many images will come, if known.
        size: how many images an item holds.
    """
    time_left, done = TimeLeft(total, "images"), 0
    for item in items:
        yield item
        done += size(item)
        if line := time_left.line(done):
            logging.info("reading %s: %s", what, line)
