"""Augmentation of all that the discriminator sees, real and generated: `CoTraining.augmentation = @diff_augment()`.

With few real images the discriminator learns them by heart. If real images alone were augmented, the generator would
learn to make augmented ones; so both are, and the generator's gradient goes through the augmentation.
"""

from __future__ import annotations

import dataclasses

import gin
import tensorflow as tf

from robgan_tf.data.augmentation import painted
from robgan_tf.data.preprocessing import windows
from robgan_tf.values import checked, number, switch


class Augmentation:
    """Base of the augmentations that the discriminator sees images through.

    Attributes:
        numbers: how many random numbers an image takes.
    """

    numbers: int

    def __call__(self, images: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Returns augmented images, float32 [b, H, W, C], differentiable by the images.

        Each image's depends on itself and its own random numbers alone.

        Args:
            images: float32 [b, H, W, C] in [-1, 1].
            uniform: random numbers from [0, 1), float32 [b, numbers].
        """
        raise NotImplementedError


@gin.configurable("diff_augment")
@checked("diff_augment", color=switch(), translation=number(least=0, below=1), cutout=number(least=0, below=1))
@dataclasses.dataclass(frozen=True)
class DiffAugment(Augmentation):
    """Colour, translation and cutout, in this order (Zhao et al., NeurIPS 2020, section 4; defaults of their code).

    Brightness: x + b, b from [-0.5, 0.5); saturation: its distance from the pixel's mean over the channels times a
    number from [0, 2); contrast: its distance from the image's mean times a number from [0.5, 1.5). All this may leave
    [-1, 1]. Translation shifts by whole pixels, and cutout paints a rectangle with a centre anywhere; both fill with 0.

    Attributes:
        color: whether brightness, saturation and contrast change.
        translation: longest shift as a share of the image's sides; 0 for none.
        cutout: sides of the rectangle as a share of the image's; 0 for none.

    Raises:
        ValueError: if nothing is left to do.
    """

    color: bool = True
    translation: float = 0.125
    cutout: float = 0.5
    numbers = 7

    def __post_init__(self):
        if not (self.color or self.translation or self.cutout):
            raise ValueError("diff_augment does nothing by its bindings: set CoTraining.augmentation = None.")

    def __call__(self, images, uniform):
        """See `Augmentation`."""
        if self.color:
            images = _recoloured(images, uniform[:, :3])
        if self.translation:
            images = _shifted(images, uniform[:, 3:5], self.translation)
        if self.cutout:
            images = _cut_out(images, uniform[:, 5:], self.cutout)
        return images


def _recoloured(images, uniform):
    brightness, saturation, contrast = tf.unstack(uniform[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    images += brightness - 0.5
    mean = tf.reduce_mean(images, axis=3, keepdims=True)
    images = (images - mean) * (2.0 * saturation) + mean
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


def _shifted(images, uniform, share: float):
    most = [_part(side, share) for side in images.shape[1:3]]
    shifts = tf.cast(tf.floor(uniform * [2.0 * one + 1.0 for one in most]), tf.int32) - most
    return windows(images, shifts + max(most), max(most))


def _cut_out(images, uniform, share: float):
    sides, sizes = images.shape[1:3], [_part(side, share) for side in images.shape[1:3]]
    # As many places for an even size, whose centre is between two pixels, that it covers the first and the last alike.
    places = [side + 1.0 - size % 2 for side, size in zip(sides, sizes)]
    top, left = tf.unstack(tf.floor(uniform * places) - [float(size // 2) for size in sizes], axis=1)
    rows, columns = (tf.fill(tf.shape(top), float(size)) for size in sizes)
    return painted(images, top, left, rows, columns, 0.0)


def _part(side: int, share: float) -> int:
    return int(side * share + 0.5)
