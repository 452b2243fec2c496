"""Where the images come from that are measured: a generator, a file, or a split of a data set. All are uint8.

Generated images are rounded to 256 levels before anything is measured, as they would be saved and as real images are:
a network that sees what lies between the levels would tell the two apart by that alone.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from robgan_tf.data.checksums import file_checksum
from robgan_tf.data.datasets import Examples, ImageData, TrainingSplit, stratified_order
from robgan_tf.data.preprocessing import to_uint8
from robgan_tf.data.sources.sample_files import read_samples
from robgan_tf.players.sampling import draw_noise, generate


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


class SampledImages(ImageSource):
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
        self._make = tf.function(self._make, reduce_retracing=True, autograph=False)

    def _make(self, batch, labels, use):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([self.seed, 0x6E4E], tf.int32), use)
        noise = draw_noise(self.generator, [tf.size(labels)], tf.random.experimental.stateless_fold_in(seed, batch))
        return to_uint8(generate(self.generator, noise, labels))

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


def images_of_file(path: str, data: ImageData, seed: int) -> StoredImages:
    """Returns the images of an .npz file, see `read_samples`.

    Raises:
        ValueError: for a file that is none, or does not fit the data.
    """
    examples = read_samples(path, data.num_classes)
    if examples.image_shape != data.image_shape:
        raise ValueError(
            f"{path}: images are of shape {examples.image_shape}, those of {data.name} {data.image_shape}."
        )
    digest = file_checksum(path)
    about = {"source": "file", "file": str(path), "sha256": digest, "available": len(examples)}
    return StoredImages(examples, seed, about)
