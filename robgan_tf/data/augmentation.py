"""Stronger augmentations than `preprocessing` has: what is hidden, shifted or changed in colour and shape.

As there: functions of a batch [B, H, W, C] on the stored scale 0..255 and a seed of three integers, which work on the
whole batch at once and give an image the same random numbers however the batch is divided. Named in a config:

    Experiment.augment = (@random_flip, @crop_shift, @random_operation, @random_erasing)

This is IDBH's recipe for CIFAR-10 (Li & Spratling, ICLR 2023), whose authors find what adversarial training gains from.
"""

from __future__ import annotations

import math

import gin
import tensorflow as tf

from robgan_tf.data.pillow_operations import OPERATIONS
from robgan_tf.data.preprocessing import uniform
from robgan_tf.values import checked, number, whole


@gin.configurable
@checked(size=whole(1), fill=whole(0, 255))
def cutout(images: tf.Tensor, seed: tf.Tensor, size: int = 16, fill: int = 128) -> tf.Tensor:
    """Paints a square over each image, its centre anywhere in the image (DeVries & Taylor 2017).

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [3] integers, see `preprocessing`.
        size: side of the square in pixels, 16 for CIFAR-10 in the paper; what is outside of the image is cut off, and
            an odd size is made even, as in the authors' code.
        fill: the colour; theirs is the mean of the data.

    Returns:
        [B, H, W, C] of the input's type and scale.
    """
    height, width = images.shape[1:3]
    centres = uniform(seed, [tf.shape(images)[0], 2]) * [height, width]
    top, left = tf.unstack(tf.floor(centres) - size // 2, axis=1)
    side = tf.fill(tf.shape(top), 2.0 * (size // 2))
    return painted(images, top, left, side, side, fill)


@gin.configurable
@checked(
    probability=number(above=0, most=1),
    min_area=number(above=0, most=1),
    max_area=number(above=0, most=1),
    max_ratio=number(least=1),
    fill=whole(0, 255),
)
def random_erasing(
    images: tf.Tensor,
    seed: tf.Tensor,
    probability: float = 0.5,
    min_area: float = 0.02,
    max_area: float = 0.33,
    max_ratio: float = 3.3,
    fill: int = 0,
) -> tf.Tensor:
    """Paints a rectangle over some images (Zhong et al., AAAI 2020); the defaults are torchvision's.

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [3] integers, see `preprocessing`.
        probability: share of the images; 0.5 in IDBH's weak recipe, 1 in its strong one.
        min_area: smallest share of the image's area.
        max_area: largest share, at least `min_area`.
        max_ratio: largest ratio of the sides, either way; its logarithm is uniform. A side that would be longer than
            the image is cut, where torchvision draws anew.
        fill: the colour.

    Returns:
        [B, H, W, C] of the input's type and scale.

    Raises:
        ValueError: for areas that contradict each other.
    """
    if min_area > max_area:
        raise ValueError(f"random_erasing: needs min_area <= max_area, got {min_area} and {max_area}.")
    height, width = images.shape[1:3]
    area, ratio, row, column, chance = tf.unstack(uniform(seed, [tf.shape(images)[0], 5]), axis=1)
    area = height * width * (min_area + (max_area - min_area) * area)
    ratio = tf.exp(math.log(max_ratio) * (2.0 * ratio - 1.0))
    rows = tf.minimum(tf.round(tf.sqrt(area * ratio)), height)
    columns = tf.minimum(tf.round(tf.sqrt(area / ratio)), width)
    rows = tf.where(chance < probability, rows, 0.0)
    top, left = tf.floor(row * (height - rows + 1.0)), tf.floor(column * (width - columns + 1.0))
    return painted(images, top, left, rows, columns, fill)


@gin.configurable
@checked(strength=whole(0))
def crop_shift(images: tf.Tensor, seed: tf.Tensor, strength: int = 10) -> tf.Tensor:
    """Cuts a window out of each image and puts it somewhere else on black (Li & Spratling, ICLR 2023, section 4).

    The window lacks n pixels of the image in both directions together, n uniform in 0..strength. `pad_and_crop` moves
    images as far, and cuts off just what its shift pushes over the border.

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [3] integers, see `preprocessing`.
        strength: most pixels to leave out, less than the image's sides; 10 for CIFAR-10 in the paper, 8 for SVHN.

    Returns:
        [B, H, W, C] of the input's type and scale.

    Raises:
        ValueError: if nothing of an image might be left.
    """
    height, width, channels = images.shape[1:]
    if strength >= min(height, width):
        raise ValueError(f"crop_shift.strength = {strength} must be less than the images' sides, {height} and {width}.")
    batch = tf.shape(images)[0]
    numbers = uniform(seed, [batch, 6])
    left_out = tf.floor(numbers[:, 0] * (strength + 1))
    in_columns = tf.floor(numbers[:, 1] * (left_out + 1))
    gaps = tf.stack([left_out - in_columns, in_columns], axis=1)
    sources = tf.cast(tf.floor(numbers[:, 2:4] * (gaps + 1)), tf.int32)
    targets = tf.cast(tf.floor(numbers[:, 4:6] * (gaps + 1)), tf.int32)
    gaps = tf.cast(gaps, tf.int32)

    def along(axis, length):
        """Where each pixel of the result comes from, [B, length], and whether it is in the window."""
        place = tf.range(length) - targets[:, axis : axis + 1]
        inside = (place >= 0) & (place < length - gaps[:, axis : axis + 1])
        return tf.where(inside, place + sources[:, axis : axis + 1], 0), inside

    (rows, in_rows), (columns, in_columns) = along(0, height), along(1, width)
    pixels = (tf.range(batch)[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]
    moved = tf.gather(tf.reshape(images, [-1, channels]), pixels)
    inside = (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
    return tf.ensure_shape(tf.where(inside, moved, tf.zeros_like(moved)), images.shape)


@gin.configurable
def random_operation(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Does one of eight operations on each image, by chance: the "color-biased" ones of Li & Spratling, ICLR 2023.

    Saturation, brightness, contrast, sharpness, autocontrast, equalisation, shear and rotation, in the paper's ranges;
    see `pillow_operations`.

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [3] integers, see `preprocessing`.

    Returns:
        float32 [B, H, W, C], stored scale 0..255, whole numbers.
    """
    choice, strength, sign = tf.unstack(uniform(seed, [tf.shape(images)[0], 3]), axis=1)
    result = tf.cast(images, tf.float32)
    choice = tf.cast(choice * len(OPERATIONS), tf.int32)
    for index, (operation, low, high) in enumerate(OPERATIONS):
        # These images alone: all operations on all of them would take eight times as long.
        rows = tf.where(choice == index)
        some, number = tf.gather(result, rows[:, 0]), tf.gather(strength, rows[:, 0])
        changed = operation(some, low + (high - low) * number, tf.gather(sign, rows[:, 0]))
        changed = tf.clip_by_value(tf.round(changed), 0.0, 255.0)
        result = tf.tensor_scatter_nd_update(result, rows, changed)
    return tf.ensure_shape(result, images.shape)


def painted(images, top, left, rows, columns, fill: float) -> tf.Tensor:
    """Returns images [B, H, W, C] with a rectangle of `fill` each, [B] whole numbers, which may be partly outside."""
    height, width = images.shape[1:3]

    def within(first, length, size):
        places = tf.range(size, dtype=tf.float32)
        return (places >= first[:, None]) & (places < (first + length)[:, None])

    inside = within(top, rows, height)[:, :, None] & within(left, columns, width)[:, None, :]
    painted = tf.where(inside[..., None], tf.cast(fill, images.dtype), images)
    return tf.ensure_shape(painted, images.shape)
