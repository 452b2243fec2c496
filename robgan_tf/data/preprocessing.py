"""What happens to pixels between a stored uint8 image and a network, as pure functions of (images, seed).

Two scales occur, and every function says which one it takes: *stored* is 0..255 (uint8 or float32), *network* is the
paper's [-1, 1], on which every epsilon of this project is measured.

Augmentations take a batch [B, H, W, C] on the stored scale and a seed, and work on the whole batch at once: a map over
single images costs more than a small network's training step. They can be named in a config:

    Experiment.augment = (@pad_and_crop, @random_flip)

A seed has three integers: a stateless seed of two, and the row of the global batch that these images begin with. Random
numbers are drawn from it by `uniform`, so that an image gets the same ones however the batch is divided among workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gin
import tensorflow as tf

from robgan_tf.values import checked, number, whole


def row_seed(seed: tf.Tensor, first_row: tf.Tensor) -> tf.Tensor:
    """int64 [3]: a stateless seed [2] with the row of the global batch that comes first."""
    return tf.concat([seed, [first_row]], axis=0)


def uniform(seed: tf.Tensor, shape: Sequence) -> tf.Tensor:
    """Uniform random numbers for some rows of a batch, the same for a row whichever rows are asked for with it.

    Args:
        seed: int64 [3]: a stateless seed of two, and the number of the first row within the global batch.
        shape: (B, ...): number of rows, which may be a tensor, and what each row takes.

    Returns:
        float32 of that shape: multiples of 1 / 65536 in [0, 1).
    """
    rows, *inner = shape
    count = math.prod(inner)
    # Philox counts, and makes four numbers of 32 bits from each count: rows that take whole counts can be skipped.
    # Numbers of 16 bits take half the time, and for a crop, or noise within one level of 256, they are as good.
    counts = -(-count // 8)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed[:2])
    counter += tf.cast(tf.stack([seed[2] * counts, 0]), tf.uint64)
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([rows, 4 * counts]),
        key=key,
        counter=counter,
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.uint32,
    )
    numbers = tf.reshape(tf.bitcast(bits, tf.uint16), [rows, 8 * counts])[:, :count]
    return tf.reshape(tf.cast(numbers, tf.float32) / 65536, [rows, *inner])


@gin.configurable
@checked(padding=whole(0))
def pad_and_crop(images: tf.Tensor, seed: tf.Tensor, padding: int = 4) -> tf.Tensor:
    """Shifts each image by up to `padding` pixels: pads with black and cuts a random window (the CIFAR-10 recipe).

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [3] integers, see above; equal seeds give equal crops.
        padding: black pixels added on each side; 0 changes nothing.

    Returns:
        [B, H, W, C] of the input's type and scale; each image has an offset of its own, uniform in 0..2 * padding.

    Raises:
        ValueError: if padding is negative.
    """
    if padding == 0:
        return images
    return windows(images, tf.cast(uniform(seed, [tf.shape(images)[0], 2]) * (2 * padding + 1), tf.int32), padding)


def windows(images: tf.Tensor, corners: tf.Tensor, padding: int) -> tf.Tensor:
    """Cuts a window of the images' size out of each image with `padding` pixels of 0 around it.

    Args:
        images: [B, H, W, C], any number type.
        corners: int32 [B, 2]: row and column of each window's corner, in 0..2 * padding; `padding` for no shift.
        padding: pixels added on each side.

    Returns:
        [B, H, W, C] of the input's type, differentiable by the images.
    """
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    # One gather of whole pixels from the flattened batch takes half the time of one for rows and one for columns.
    rows = tf.range(batch)[:, None] * (height + 2 * padding) + corners[:, :1] + tf.range(height)
    pixels = rows[:, :, None] * (width + 2 * padding) + (corners[:, 1:] + tf.range(width))[:, None, :]
    return tf.ensure_shape(tf.gather(tf.reshape(padded, [-1, channels]), pixels), images.shape)


@gin.configurable
def random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability one half.

    Args:
        images: [B, H, W, C], any scale and number type.
        seed: [3] integers, see above. The same seed twice restores the images.

    Returns:
        [B, H, W, C] of the input's type and scale.
    """
    mirrored = tf.where(uniform(seed, [tf.shape(images)[0]]) < 0.5)
    # Only these are touched: mirroring all of them and choosing by tf.where would take seven times as long.
    flipped = tf.reverse(tf.gather(images, mirrored[:, 0]), axis=[2])
    return tf.ensure_shape(tf.tensor_scatter_nd_update(images, mirrored, flipped), images.shape)


@gin.configurable
@checked(min_area=number(above=0, most=1), max_area=number(above=0, most=1))
def random_resized_crop(images: tf.Tensor, seed: tf.Tensor, min_area: float = 0.8, max_area: float = 0.9) -> tf.Tensor:
    """Cuts a random square holding 80 to 90 % of each image's area and enlarges it to full size (bilinear).

    The area range and the fixed ratio of 1 are those of Rob-GAN's ImageNet runs. `random_flip` is cheaper before than
    after it, on uint8.

    Args:
        images: [B, S, S, C], square, stored scale 0..255, any number type.
        seed: [3] integers, see above.
        min_area: smallest share of the image's area, in (0, 1].
        max_area: largest share, in [min_area, 1].

    Returns:
        float32 [B, S, S, C], stored scale 0..255 (no longer whole numbers).

    Raises:
        ValueError: if the images are not square, or not 0 < min_area <= max_area <= 1.
    """
    if not 0 < min_area <= max_area <= 1:
        raise ValueError(
            f"random_resized_crop: needs 0 < min_area <= max_area <= 1, got min_area={min_area}, max_area={max_area}."
        )
    size = images.shape[1]
    if size != images.shape[2]:
        raise ValueError(
            f"random_resized_crop: needs square images, got {size}x{images.shape[2]}; set image_size on the data."
        )
    batch = tf.shape(images)[0]
    area, vertical, horizontal = tf.unstack(uniform(seed, [batch, 3]), axis=1)
    side = tf.sqrt(min_area + (max_area - min_area) * area)
    # crop_and_resize paints black whatever it samples outside of the image, and y + side may be rounded up past 1:
    # the margin (a ten-thousandth of a pixel) keeps the last row and column inside.
    room = tf.maximum(1.0 - side - 1e-6, 0.0)
    y, x = vertical * room, horizontal * room
    boxes = tf.stack([y, x, y + side, x + side], axis=1)
    images = tf.cast(images, tf.float32)  # crop_and_resize would convert each pixel four times
    cropped = tf.image.crop_and_resize(images, boxes, tf.range(batch), [size, size])
    return tf.ensure_shape(cropped, images.shape)


def to_pixel_range(images: tf.Tensor) -> tf.Tensor:
    """Stored scale to network scale: x / 127.5 - 1, exact at both ends (0 -> -1, 255 -> 1).

    Args:
        images: any shape, 0..255, any number type.

    Returns:
        float32 of the same shape in [-1, 1].
    """
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Network scale to stored scale: rounds to the nearest level and clips; the inverse of `to_pixel_range`.

    Args:
        images: any shape, float, nominally in [-1, 1]; values outside are clipped.

    Returns:
        uint8 of the same shape.
    """
    levels = tf.round((tf.cast(images, tf.float32) + 1.0) * 127.5)
    return tf.cast(tf.clip_by_value(levels, 0.0, 255.0), tf.uint8)


def dequantise(images: tf.Tensor, seed: tf.Tensor, width: float) -> tf.Tensor:
    """Adds uniform noise U(0, width), so that the discriminator can't tell real images by their 256 levels.

    A level is 1/127.5 wide, and Rob-GAN uses width 1/128. White plus noise would leave [-1, 1], the range of the
    threat model and of the generator's tanh, so the sum is clipped to 1: white pixels stay white.

    Args:
        images: [B, ...], float32, network scale [-1, 1].
        seed: [3] integers, see above.
        width: largest noise on the network scale; 0 changes nothing.

    Returns:
        float32 of the same shape in [-1, 1].

    Raises:
        ValueError: if width is negative.
    """
    if width < 0:
        raise ValueError(f"dequantise: the noise's width must be 0 or more, got {width}.")
    if width == 0:
        return images
    noise = width * uniform(seed, [tf.shape(images)[0], *images.shape[1:]])
    return tf.minimum(images + noise, 1.0)


def centre_square(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Cuts the largest centred square out of one image and resizes it (bilinear, antialiased).

    `image_folder` does the same in Pillow; both filters are a triangle as wide as the scale, so they agree.

    Args:
        image: uint8 [H, W, C], stored scale; H and W may be unknown while tracing.
        image_size: side of the result in pixels.

    Returns:
        uint8 [image_size, image_size, C], stored scale. An image of that size already is returned unchanged.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    resized = tf.image.resize(square, [image_size, image_size], antialias=True)
    resized = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(resized, [image_size, image_size, image.shape[-1]])
