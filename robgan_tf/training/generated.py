"""Where the generated images of fine-tuning come from: a generator, or a sample set on disk (Rob-GAN, eq. 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.batches import check_augmentations
from robgan_tf.data.names import some
from robgan_tf.data.preprocessing import row_seed, to_pixel_range, to_uint8
from robgan_tf.data.sources.sample_files import read_samples, write_sample_file
from robgan_tf.keras2 import keras
from robgan_tf.paths import local_path
from robgan_tf.players.sampling import draw_noise, generate
from robgan_tf.training.randomness import generator_inputs, shares_of_replicas
from robgan_tf.values import checked, maker, number, optional, several, switch

# Images that are made at once for a file.
_CHUNK = 250
# Bytes of a file's images that are held in memory: reading them in a step takes longer.
_IN_MEMORY = 2**28
# What the noise and labels of a generator may be.
_INPUTS = {"truncation": optional(number(above=0, most=4)), "balanced_labels": switch()}


class GeneratedImages:
    """Base of the sources of generated images.

    Attributes:
        origin: what it is, for messages.
        nbytes: bytes that it holds in the host's memory.
        num_classes: number of classes of its images.
        image_shape: (H, W, C) of its images.
    """

    origin: str
    nbytes: int = 0
    num_classes: int
    image_shape: tuple[int, int, int]

    def sample(self, seed, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns images float32 [count, H, W, C] in [-1, 1] and labels int32 [count], for this replica.

        They are drawn for the global batch and cut, so that any number of replicas sees the same global batch.

        Args:
            seed: int32 [2], the same on all replicas.
            count: number of images for each replica.
        """
        raise NotImplementedError

    def check(self, num_classes: int, image_shape: Sequence[int]):
        """Raises a ValueError where the images do not fit a classifier of `num_classes` and `image_shape` (H, W, C)."""
        for what, here, there in (
            ("classes", self.num_classes, num_classes),
            ("image shape", tuple(self.image_shape), tuple(image_shape)),
        ):
            if here != there:
                raise ValueError(
                    f"{self.origin}: it has {what} {here}, the classifier {there}: generated images must be of the "
                    f"classes and the size of the data."
                )


@checked(**_INPUTS)
class FromGenerator(GeneratedImages):
    """Images of a frozen generator, in inference mode, of uniform classes.

    Args:
        generator: maps (z, labels) to images.
        truncation: no entry of the noise z ~ N(0, I) is larger than this, in (0, 4]: images that are more typical and
            less varied, the more so the smaller it is (Brock et al., ICLR 2019). None for all noise.
        balanced_labels: whether each batch has equally many images of each class, give or take one.
    """

    origin = "the generator of this run"

    def __init__(self, generator: keras.Model, truncation: float | None = None, balanced_labels: bool = False):
        self.generator = generator
        self.truncation = truncation
        self.balanced_labels = balanced_labels
        self.num_classes = generator.num_classes
        self.image_shape = generator.image_shape

    def sample(self, seed, count):
        """See `GeneratedImages`."""
        inputs = generator_inputs(
            seed, count, self.generator.latent_dim, self.num_classes, self.balanced_labels, self.truncation
        )
        return generate(self.generator, *inputs), inputs[1]


class FromFile(GeneratedImages):
    """Images of a fixed sample set, drawn with replacement: from memory if it is small, else read as they are drawn.

    Args:
        path: the file, see `read_samples`.
        num_classes: number of classes of the data.

    Raises:
        ValueError: see `read_samples`.
    """

    def __init__(self, path: str, num_classes: int):
        self.origin = f"sample_file.path = {path}"
        self._examples = read_samples(path, num_classes)
        self.nbytes = self._examples.labels.nbytes
        if self._examples.images.nbytes <= _IN_MEMORY:
            self._examples = self._examples.select(np.arange(len(self._examples)))
            self.nbytes += self._examples.images.nbytes
        self.num_classes = num_classes
        self.image_shape = self._examples.image_shape

    def sample(self, seed, count):
        """See `GeneratedImages`."""
        with tf.device("CPU:0"):  # whatever the strategy: the file is read there
            (rows,) = shares_of_replicas(
                lambda total: [tf.random.stateless_uniform([total], seed, maxval=len(self._examples), dtype=tf.int32)],
                count,
            )
            images, labels = self._examples.gather(rows)
        return to_pixel_range(images), labels

    def check(self, num_classes, image_shape):
        """See `GeneratedImages`; also raises a ValueError where the file has no image of a class."""
        super().check(num_classes, image_shape)
        missing = np.flatnonzero(np.bincount(self._examples.labels, minlength=num_classes) == 0)
        if len(missing):
            raise ValueError(
                f"{self.origin}: it has no image of {len(missing)} of the data's {num_classes} classes "
                f"({some([str(label) for label in missing])}): take more samples, or a file of the same data."
            )


class Augmented(GeneratedImages):
    """The images of another source, augmented by other random numbers in each batch.

    They are rounded to 8 bits before, as real images are, and as those of a file are anyway.

    Args:
        source: where they come from.
        augment: augmentations, applied in this order, see `data/preprocessing.py`.

    Raises:
        ValueError: for what the augmentations refuse.
    """

    def __init__(self, source: GeneratedImages, augment: Sequence[Callable]):
        check_augmentations(augment, source.image_shape, "augmented.augment")
        self.source = source
        self.augment = tuple(augment)
        self.origin, self.nbytes = source.origin, source.nbytes
        self.num_classes, self.image_shape = source.num_classes, source.image_shape

    def sample(self, seed, count):
        """See `GeneratedImages`."""
        images, labels = self.source.sample(seed, count)
        images = to_uint8(images)
        first = tf.cast(count * tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        with tf.device("CPU:0"):  # whatever the strategy: not all operations on uint8 have kernels for GPUs
            for position, function in enumerate(self.augment):
                key = tf.random.experimental.stateless_fold_in(seed, 0xA463 + position)
                images = function(images, row_seed(tf.cast(key, tf.int64), first))
        return tf.ensure_shape(to_pixel_range(images), [count, *self.image_shape]), labels

    def check(self, num_classes, image_shape):
        """See `GeneratedImages`."""
        self.source.check(num_classes, image_shape)


@gin.configurable
@checked(**_INPUTS)
def this_generator(
    generator: keras.Model | None, num_classes: int, truncation: float | None = None, balanced_labels: bool = False
) -> FromGenerator | None:
    """The source for `Experiment.generated` that draws from the averaged generator of this run; none without one.

    `truncation` and `balanced_labels` are those of `FromGenerator`.
    """
    del num_classes
    return None if generator is None else FromGenerator(generator, truncation, balanced_labels)


@gin.configurable
def sample_file(generator: keras.Model | None, num_classes: int, path: str = gin.REQUIRED) -> FromFile:
    """The source for `Experiment.generated` that draws from a sample set on disk, see `FromFile`."""
    del generator
    return FromFile(local_path(path, "sample_file.path"), num_classes)


@gin.configurable
@checked(source=maker("@sample_file"), augment=several(maker("@random_flip")))
def augmented(
    generator: keras.Model | None,
    num_classes: int,
    source: Callable = gin.REQUIRED,
    augment: Sequence[Callable] = gin.REQUIRED,
) -> Augmented | None:
    """The source for `Experiment.generated` that augments the images of another: `augmented.source = @sample_file`."""
    made = source(generator, num_classes)
    return None if made is None else Augmented(made, augment)


def write_samples(generator: keras.Model, path: str, count: int, seed: int):
    """Writes an .npz file of generated images, uint8 [N, H, W, C], and labels, int32 [N], for `read_samples`.

    The classes come in turn, equally often. The images are made in chunks, see `write_sample_file`.

    Args:
        generator: maps (z, labels) to images, in inference mode.
        path: the file.
        count: number of images, N.
        seed: seed of the noise. The first images of a larger count are those of a smaller one.
    """
    labels = np.arange(count, dtype=np.int32) % generator.num_classes
    write_sample_file(path, _chunks(generator, labels, seed), labels, generator.image_shape)


def _chunks(generator: keras.Model, labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    @tf.function(autograph=False)
    def make(seed, labels):
        return to_uint8(generate(generator, draw_noise(generator, [_CHUNK], seed), labels))

    for index, begin in enumerate(range(0, len(labels), _CHUNK)):
        chunk = labels[begin : begin + _CHUNK]
        seeds = tf.random.experimental.stateless_fold_in(tf.constant([seed, 0x5A3E]), index)
        yield make(seeds, tf.constant(np.resize(chunk, _CHUNK)))[: len(chunk)].numpy()
