"""Labelled images in memory, and what every source of them needs: the validation cut, checks, progress.

A split is held as uint8 arrays. The sources are in `tfds_images` and `image_folder`, the batches in `batches`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

# Images that are read or moved at once.
READ_BATCH = 256


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


def image_data(
    name: str, class_names: Sequence[str], train: Examples, test: Examples, validation_examples: int, seed: int
) -> ImageData:
    """Moves validation_examples, stratified by class, from train to a split of their own.

    Args:
        name: of the data set.
        class_names: one for each label.
        train: the whole training split; its arrays are overwritten.
        test: the held-out split, passed on as it is.
        validation_examples: how many examples to move.
        seed: of the choice of validation images.

    Returns:
        ImageData with the three splits.

    Raises:
        ValueError: if validation_examples is negative, or leaves nothing to train on.
    """
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
    for start in range(0, len(kept), READ_BATCH):
        piece = kept[start : start + READ_BATCH]
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


def check_image_size(source: str, image_size: int) -> None:
    """Raises ValueError, in the name of the configurable `source`, if a side of image_size pixels is no image."""
    if image_size < 1:
        raise ValueError(f"{source}: image_size must be 1 pixel or more, got {image_size}.")


def check_memory(source: str, name: str, count: int, bytes_per_image: int, limit_gib: float) -> None:
    """Raises ValueError, in the name of the configurable `source`, if `count` images need more than limit_gib GiB."""
    needed = count * bytes_per_image / 2**30
    if needed > limit_gib:
        raise ValueError(
            f"{source}: the {count} images of {name} need {needed:.3g} GiB of memory, over {source}.memory_limit_gib = "
            f"{limit_gib:.3g}; use a smaller image_size, fewer images, or raise the limit."
        )


def with_progress(items: Iterator, what: str, total: int | None, size: Callable = lambda item: 1) -> Iterator:
    """Passes items on, and logs count, rate and time left every ten seconds.

    Args:
        items: what is read.
        what: its name in the log.
        total: how many images will come, if known.
        size: how many images an item holds.

    Returns:
        An iterator of the same items.
    """
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


def some(names) -> str:
    """At most three names, for a message."""
    names = sorted(names)
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"


def first_line(error: Exception) -> str:
    """The first line of an error's text that is not blank, or the error's type, for a message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
