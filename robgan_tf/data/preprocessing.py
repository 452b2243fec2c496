"""What happens to pixels between a stored uint8 image and a network, as pure functions of (images, seed).

Two scales occur, and every function says which one it takes: *stored* is 0..255 (uint8 or float32), *network* is the
paper's [-1, 1], on which every epsilon of this project is measured.

Augmentations take a batch [B, H, W, C] on the stored scale and a stateless seed [2], and work on the whole batch at
once: a map over single images costs more than a small network's training step. They can be named in a config:

    Experiment.augment = (@pad_and_crop, @random_flip)
"""

from __future__ import annotations

import gin
import tensorflow as tf


@gin.configurable
def pad_and_crop(images: tf.Tensor, seed: tf.Tensor, padding: int = 4) -> tf.Tensor:
    """Shifts each image by up to `padding` pixels: pads with black and cuts a random window (the CIFAR-10 recipe).

    Args:
        images: [B, H, W, C], stored scale 0..255, any number type.
        seed: [2] integers, a stateless seed; equal seeds give equal crops.
        padding: black pixels added on each side; 0 changes nothing.

    Returns:
        [B, H, W, C] of the input's type and scale; each image has an offset of its own, uniform in 0..2 * padding.

    Raises:
        ValueError: if padding is negative.
    """
    if padding < 0:
        raise ValueError(f"pad_and_crop: padding must be 0 or more pixels, got {padding}.")
    if padding == 0:
        return images
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    offsets = tf.random.stateless_uniform([2, batch, 1], seed, 0, 2 * padding + 1, tf.int32)
    # One gather of whole pixels from the flattened batch takes half the time of one for rows and one for columns.
    rows = tf.range(batch)[:, None] * (height + 2 * padding) + offsets[0] + tf.range(height)
    pixels = rows[:, :, None] * (width + 2 * padding) + (offsets[1] + tf.range(width))[:, None, :]
    return tf.ensure_shape(tf.gather(tf.reshape(padded, [-1, channels]), pixels), images.shape)


@gin.configurable
def random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability one half.

    Args:
        images: [B, H, W, C], any scale and number type.
        seed: [2] integers, a stateless seed. The same seed twice restores the images.

    Returns:
        [B, H, W, C] of the input's type and scale.
    """
    width = images.shape[2]
    mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1], seed) < 0.5
    columns = tf.where(mirrored, tf.range(width - 1, -1, -1), tf.range(width))
    # images[:, :, ::-1] and tf.where would take four times as long.
    return tf.ensure_shape(tf.gather(images, columns, axis=2, batch_dims=1), images.shape)


@gin.configurable
def random_resized_crop(images: tf.Tensor, seed: tf.Tensor, min_area: float = 0.8, max_area: float = 0.9) -> tf.Tensor:
    """Cuts a random square holding 80 to 90 % of each image's area and enlarges it to full size (bilinear).

    The area range and the fixed ratio of 1 are those of Rob-GAN's ImageNet runs.

    Args:
        images: [B, S, S, C], square, stored scale 0..255, any number type.
        seed: [2] integers, a stateless seed.
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
    uniform = tf.random.stateless_uniform([3, batch], seed)
    side = tf.sqrt(min_area + (max_area - min_area) * uniform[0])
    # crop_and_resize paints black whatever it samples outside of the image, and y + side may be rounded up past 1:
    # the margin (a ten-thousandth of a pixel) keeps the last row and column inside.
    room = tf.maximum(1.0 - side - 1e-6, 0.0)
    y, x = uniform[1] * room, uniform[2] * room
    boxes = tf.stack([y, x, y + side, x + side], axis=1)
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
        images: any shape, float32, network scale [-1, 1].
        seed: [2] integers, a stateless seed.
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
    noise = tf.random.stateless_uniform(tf.shape(images), seed, 0.0, width)
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
