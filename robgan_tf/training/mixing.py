"""What mixes the images of a batch with each other, and their labels alike, before they are attacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import gin
import tensorflow as tf

from robgan_tf.training.randomness import shares_of_replicas
from robgan_tf.values import checked, number


class Mixing:
    """Base of the mixtures.

    Each image is mixed with its neighbour in the batch, the first with the second, the third with the fourth: batches
    are shuffled anyway, and so the result is the same however many replicas share a batch, if each has an even number.

    Attributes:
        numbers: how many random numbers an image takes.
    """

    numbers: int

    def check(self, shares: Sequence[int]):
        """Raises a ValueError where the images of a kind, real or generated, on a replica can't be paired."""
        if any(count % 2 for count in shares):
            raise ValueError(
                f"FineTuning.mixing pairs the images of a batch, and a replica has {shares[0]} real and {shares[1]} "
                f"generated ones: make both even by FineTuning.batch_size."
            )

    def __call__(self, images, labels, seed, num_classes: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mixed images and the probabilities of their classes, float32 [b, K], of this replica.

        Args:
            images: float32 [b, H, W, C], of this replica, b even.
            labels: their classes, int32 [b].
            seed: int32 [2], the same on all replicas.
            num_classes: K.
        """

        def draw(total):
            return [tf.random.stateless_uniform([total, self.numbers], seed)]

        (uniform,) = shares_of_replicas(draw, images.shape[0])
        return self.mixed(images, tf.one_hot(labels, num_classes), uniform)

    def mixed(self, images, labels, uniform) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mixed images and labels.

        Args:
            images: float32 [b, H, W, C], b even.
            labels: probabilities of their classes, float32 [b, K].
            uniform: random numbers from [0, 1), [b, numbers].
        """
        raise NotImplementedError


@gin.configurable("cutmix")
@checked("cutmix", probability=number(above=0, most=1))
@dataclasses.dataclass(frozen=True)
class CutMix(Mixing):
    """A rectangle of each image is its neighbour's, and its label by the share of the area (Yun et al., ICCV 2019).

    The share of the image that stays is uniform, Beta(1, 1) as in all of the paper's results; the rectangle has the
    image's ratio of sides and a uniform centre, and what reaches over the border is cut off.

    Attributes:
        probability: share of the images that are mixed; 0.5 for CIFAR-10 in the paper, 1 for ImageNet.
    """

    probability: float = 0.5
    numbers = 4

    def mixed(self, images, labels, uniform):
        """See `Mixing`."""
        height, width = images.shape[1:3]
        kept, row, column, chance = tf.unstack(uniform, axis=1)
        side = tf.sqrt(1.0 - kept)
        rows = _within(row, side, height)
        columns = _within(column, side, width)
        inside = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
        inside &= (chance < self.probability)[:, tf.newaxis, tf.newaxis]
        share = tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])[:, tf.newaxis]
        images = tf.where(inside[..., tf.newaxis], neighbours(images), images)
        return images, (1.0 - share) * labels + share * neighbours(labels)


def neighbours(rows: tf.Tensor) -> tf.Tensor:
    """Returns rows [b, ...] with those of each pair exchanged: 1, 0, 3, 2, ..."""
    pairs = tf.reshape(rows, [rows.shape[0] // 2, 2, *rows.shape[1:]])
    return tf.reshape(tf.reverse(pairs, axis=[1]), rows.shape)


def _within(centre, side, length: int) -> tf.Tensor:
    """Which of `length` pixels are in a stretch of each image, bool [b, length]; as in the authors' code."""
    centre, half = tf.floor(centre * length), tf.floor(tf.floor(side * length) / 2.0)
    pixels = tf.range(length, dtype=tf.float32)
    return (pixels >= (centre - half)[:, tf.newaxis]) & (pixels < (centre + half)[:, tf.newaxis])
