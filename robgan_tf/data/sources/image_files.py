"""Image files that stay on disk and are decoded whenever they are drawn."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data import order, pipelines
from robgan_tf.data.datasets import Examples, TrainingSplit, check_count, stratified_order, with_progress
from robgan_tf.data.names import shown
from robgan_tf.data.sources import pillow_images


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles(TrainingSplit):
    """Labelled image files of any size and format that Pillow knows; the centre square is resized to image_size.

    The batches are those of the same images in memory, to the bit: Pillow decodes both. TensorFlow's own decoders would
    be about as fast (JPEGs of 500x375 to 128 px: 460 to 520 a second on 2 cores, Pillow 400 to 470), but know no WebP
    and no TIFF.

    Attributes:
        paths: of the files.
        labels: int32 [N], class indices from 0.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey.
    """

    paths: Sequence[pathlib.Path]
    labels: np.ndarray
    image_size: int
    channels: int = 3

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.image_size, self.image_size, self.channels)

    def select(self, chosen: np.ndarray) -> ImageFiles:
        """The files that `chosen`, an array of indices, names."""
        return dataclasses.replace(self, paths=[self.paths[i] for i in chosen], labels=self.labels[chosen])

    def take(self, count: int, seed: int = 0) -> Examples:
        check_count("ImageFiles", count)
        if count >= len(self):
            return self.read()
        return self.select(stratified_order(self.labels, seed)[:count]).read()

    def read(self) -> Examples:
        """All images, decoded into memory.

        Raises:
            ValueError: if one can't be decoded; names it.
        """
        images = np.empty([len(self), *self.image_shape], np.uint8)
        for index, image in enumerate(in_parallel(self.decode, range(len(self)), "image files")):
            images[index] = image
        return Examples(images, self.labels)

    def decode(self, index: int) -> np.ndarray:
        """uint8 [H, W, C] of one file.

        Raises:
            ValueError: if it can't be read or decoded, or has a side under `pillow_images.SMALLEST_SIDE`; names it.
        """
        path = self.paths[index]
        try:
            image = pillow_images.decode(path.read_bytes(), self.channels)
            if min(image.size) < pillow_images.SMALLEST_SIDE:
                raise ValueError(f"it has {image.width}x{image.height} pixels")
        except (OSError, ValueError) as error:
            raise ValueError(f"{shown(path)} ({error})") from error
        return np.asarray(pillow_images.centre_square(image, self.image_size)).reshape(self.image_shape)

    def raw_batches(self, batch_size: int, *, first_step: int, steps: int, seed: int, rows: range) -> tf.data.Dataset:
        with tf.device("CPU:0"):  # where the batches are made
            labels = tf.constant(self.labels)

        @tf.autograph.experimental.do_not_convert
        def own_rows(step):
            return order.shuffled_indices(step, batch_size, rows, len(self), seed)

        @tf.autograph.experimental.do_not_convert
        def read(index):
            # Pillow decodes outside of Python's global lock, so that calls in parallel are worth it.
            image = tf.numpy_function(self.decode, [index], tf.uint8, stateful=False)
            return tf.ensure_shape(image, self.image_shape), tf.gather(labels, index)

        indices = tf.data.Dataset.range(first_step, steps).map(own_rows).unbatch()
        images = indices.map(read, num_parallel_calls=pipelines.cores(), deterministic=True)
        return images.batch(len(rows), drop_remainder=True)


def in_parallel(function: Callable, items: Sequence, what: str) -> Iterator:
    """Maps in threads; yields the results in order, with progress in the log under the name `what`."""
    with concurrent.futures.ThreadPoolExecutor(pipelines.cores()) as pool:  # Pillow decodes outside of the global lock
        yield from with_progress(pool.map(function, items), what, len(items))
