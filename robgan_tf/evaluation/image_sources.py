"""Where the images come from that are measured: a generator, a file, or a split of a data set. All are uint8.

Generated images are rounded to 256 levels before anything is measured, as they would be saved and as real images are:
a network that sees what lies between the levels would tell the two apart by that alone.
"""

from __future__ import annotations

import abc
import hashlib
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData, TrainingSplit, stratified_order
from robgan_tf.data.preprocessing import to_uint8


class ImageSource(abc.ABC):
    """Labelled images to be measured or trained on.

    Attributes:
        about: what it is, as JSON, for reports.
        available: number of different images; None for any number.
    """

    about: dict
    available: int | None

    @abc.abstractmethod
    def batches(self, count: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images uint8 [b, H, W, C] and labels int32 [b], `count` in all, the classes well mixed.

        It yields the same ones at each call. `count` may be `available` at most.
        """

    @abc.abstractmethod
    def training_batches(self, updates: int, batch_size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields a batch for each of `updates`; in passes over the images where there are not enough."""


class GeneratedImages(ImageSource):
    """Images of a generator in inference mode: the classes in turn, so that all have equally many.

    Args:
        generator: maps (z, labels) to images in [-1, 1].
        seed: of z. (The images depend on the size of the batches, too: each has a seed of its own.)
        about: what reports say of it.
    """

    available = None

    def __init__(self, generator, seed: int, about: dict | None = None):
        self.about = {"source": "generator", **(about or {}), "labels": "equally many of each class", "seed": seed}
        self.generator = generator
        self.seed = seed
        self._make = tf.function(self._make, reduce_retracing=True)

    def _make(self, batch, labels, use):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([self.seed, 0x6E4E], tf.int32), use)
        noise = tf.random.stateless_normal(
            [tf.size(labels), self.generator.latent_dim], tf.random.experimental.stateless_fold_in(seed, batch)
        )
        return to_uint8(self.generator((noise, labels), training=False))

    def _batches(self, count, batch_size, use):
        for batch, begin in enumerate(range(0, count, batch_size)):
            # Whole batches, the last one cut: one graph for all.
            labels = (np.arange(begin, begin + batch_size) % self.generator.num_classes).astype(np.int32)
            images = self._make(tf.constant(batch), tf.constant(labels), tf.constant(use)).numpy()
            yield images[: count - begin], labels[: count - begin]

    def batches(self, count, batch_size):
        return self._batches(count, batch_size, 0)

    def training_batches(self, updates, batch_size, seed):
        """New images for each update, none of which `batches` yields."""
        return self._batches(updates * batch_size, batch_size, 1 + seed)


class StoredImages(ImageSource):
    """Images of a data set's split, or of a file.

    Args:
        split: the images; a training split may be a stream.
        seed: of the choice where fewer are asked for, and of the order.
        about: what reports say of it.
    """

    def __init__(self, split: TrainingSplit, seed: int, about: dict):
        self.about = about
        self.split = split
        self.seed = seed
        self.available = len(split)

    def batches(self, count, batch_size):
        if isinstance(self.split, Examples):  # no copy of it, and every beginning has all classes
            order = stratified_order(self.split.labels, self.seed)[:count]
            for begin in range(0, count, batch_size):
                chosen = order[begin : begin + batch_size]
                yield self.split.images[chosen], self.split.labels[chosen]
            return
        done = 0
        for images, labels in self.training_batches(-(-count // batch_size), batch_size, self.seed):
            yield images[: count - done], labels[: count - done]
            done += len(images)

    def training_batches(self, updates, batch_size, seed):
        return self.split.raw_batches(
            batch_size, first_step=0, steps=updates, seed=seed, rows=range(batch_size)
        ).as_numpy_iterator()


def sample_file(path: str, data: ImageData, seed: int) -> StoredImages:
    """Returns the images of an .npz file: `images` uint8 [N, H, W, C], and `labels`, whole numbers [N].

    Raises:
        ValueError: for a file that is none, or does not fit the data.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be an .npz file with `images`, uint8 [N, H, W, C], and `labels`, whole numbers [N]: {error}"
        ) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != data.image_shape or not len(images):
        raise ValueError(
            f"{path}: `images` must be uint8 [N, {', '.join(map(str, data.image_shape))}] as those of {data.name}, got "
            f"{images.dtype} {list(images.shape)}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: `labels` must be {len(images)} whole numbers, got {labels.dtype} {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= data.num_classes:
        raise ValueError(
            f"{path}: `labels` go from {labels.min()} to {labels.max()}; the classes of {data.name} are 0 to "
            f"{data.num_classes - 1}."
        )
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    about = {"source": "file", "file": str(path), "sha256": digest, "available": len(images)}
    return StoredImages(Examples(images, labels.astype(np.int32)), seed, about)
