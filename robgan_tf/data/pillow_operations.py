"""Operations on colour and shape, as Pillow has them, of a batch: for `augmentation.random_operation`.

Each takes images float32 [B, H, W, C] on 0..255, a strength for each, [B], and a random number from [0, 1) for each, by
which the geometric ones choose their direction. The result may be beyond 0..255 and is not rounded.
"""

from __future__ import annotations

import math

import tensorflow as tf


def saturation(images, strength, chance):
    """Away from grey, by `strength`: 0 is grey, 1 the image; nothing where there are no three channels."""
    del chance
    return _blend(_grey(images), images, strength)


def brightness(images, strength, chance):
    """Times `strength`."""
    del chance
    return images * _over_images(strength)


def contrast(images, strength, chance):
    """Away from the mean grey of the image, by `strength`."""
    del chance
    mean = tf.round(tf.reduce_mean(_grey(images), axis=[1, 2, 3], keepdims=True))
    return _blend(mean, images, strength)


def sharpness(images, strength, chance):
    """Away from the smoothed image, by `strength`; the border stays."""
    del chance
    height, width, channels = images.shape[1:]
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    kernel = tf.tile(kernel[:, :, None, None], [1, 1, channels, 1])
    smooth = tf.round(tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME"))
    inner = tf.pad(tf.ones([height - 2, width - 2], tf.bool), [[1, 1], [1, 1]])[None, :, :, None]
    return _blend(tf.where(inner, smooth, images), images, strength)


def autocontrast(images, strength, chance):
    """Stretches each channel to 0..255; one of a single colour stays."""
    del strength, chance
    low = tf.reduce_min(images, axis=[1, 2], keepdims=True)
    high = tf.reduce_max(images, axis=[1, 2], keepdims=True)
    return tf.where(high > low, tf.floor((images - low) * tf.math.divide_no_nan(255.0, high - low) + 1e-3), images)


def equalize(images, strength, chance):
    """Spreads the levels of each channel so that each is as frequent; one of less than 255 pixels stays."""
    del strength, chance
    height, width, channels = images.shape[1:]
    levels = tf.cast(images, tf.int32)
    flat = tf.reshape(tf.transpose(levels, [0, 3, 1, 2]), [-1, height * width])
    counts = tf.math.bincount(flat, minlength=256, maxlength=256, axis=-1)
    # Pillow: what is below a level, and half a step, over the step; the step is the pixels but those of the last level.
    highest = tf.reduce_max(flat, axis=-1, keepdims=True)
    step = (height * width - tf.gather(counts, highest, axis=1, batch_dims=1)) // 255
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    table = tf.where(step > 0, (below + step // 2) // tf.maximum(step, 1), tf.range(256))
    found = tf.reshape(tf.gather(tf.minimum(table, 255), flat, axis=1, batch_dims=1), [-1, channels, height, width])
    return tf.cast(tf.transpose(found, [0, 2, 3, 1]), tf.float32)


def shear(images, strength, chance):
    """Shifts rows or columns by `strength` pixels for each, around the centre, either way; black comes in."""
    quarter = tf.cast(chance * 4, tf.int32)
    amount = tf.where(quarter % 2 == 0, strength, -strength)
    zero, one = tf.zeros_like(strength), tf.ones_like(strength)
    in_rows = quarter < 2
    return _transformed(images, one, tf.where(in_rows, amount, zero), tf.where(in_rows, zero, amount), one)


def rotate(images, strength, chance):
    """Turns by `strength` degrees, in whole ones, around the centre, either way; black comes in."""
    angle = tf.floor(strength) * tf.where(chance < 0.5, math.pi / 180, -math.pi / 180)
    return _transformed(images, tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle))


# Each with the lowest and the highest strength: Li & Spratling, ICLR 2023, "color-biased".
OPERATIONS = (
    (saturation, 0.1, 1.9),
    (brightness, 0.5, 1.9),
    (contrast, 0.5, 1.9),
    (sharpness, 0.1, 1.9),
    (autocontrast, 0.0, 0.0),
    (equalize, 0.0, 0.0),
    (shear, 0.05, 0.15),
    (rotate, 1.0, 11.0),
)


def _over_images(values):
    return values[:, None, None, None]


def _blend(other, images, strength):
    return other + _over_images(strength) * (images - other)


def _grey(images):
    if images.shape[-1] != 3:
        return images
    weights = tf.constant([0.299, 0.587, 0.114])
    return tf.round(tf.reduce_sum(images * weights, axis=-1, keepdims=True))


def _transformed(images, xx, xy, yx, yy):
    """Images whose pixel (x, y), from the centre, is that of the image at (xx x + xy y, yx x + yy y); the nearest."""
    height, width = images.shape[1:3]
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(xx)
    matrix = [xx, xy, x - xx * x - xy * y, yx, yy, y - yx * x - yy * y, zero, zero]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(matrix, axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
