"""What a request may hold, checked inside the graph: anything else is refused with INVALID_ARGUMENT, and told why.

A model server hands whatever it is sent to the graph. It checks the types, but neither ranks nor shapes, so the graph
has to: a network that averages over its pixels would answer to an image of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from robgan_tf.data import decoding

# A photo of 16 megapixels. Decoded, it takes 48 MiB.
MAX_PIXELS = 2**24

# Images of a request that are decoded at the same time. Each may take the memory of MAX_PIXELS, three times.
_DECODED_TOGETHER = 4

_HEADER_BYTES = 24
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = b"IHDR"

# Beyond this a float is no pixel in [-1, 1], whatever the rounding.
_ROUNDED_ONE = 1.001


def check_batch(batch: tf.Tensor, inner_shape: Sequence[int], what: str) -> tf.Tensor:
    """Returns `batch`, [N, *inner_shape], after a check that it has this shape when it runs, with N >= 1.

    Args:
        batch: any type; its static shape is not believed.
        inner_shape: the shape of one element.
        what: what the elements are, for the message.
    """
    # Compared as text: TensorFlow's optimizer takes the static shape for the truth, and a comparison of numbers that
    # follows from it is removed from the graph. Text also holds a shape of any rank.
    shape = tf.strings.reduce_join(tf.strings.as_string(tf.shape(batch)), separator=", ")
    allowed = ", ".join([r"[1-9]\d*", *map(str, inner_shape)])
    wanted = ", ".join(["N", *map(str, inner_shape)])
    check = tf.debugging.Assert(
        tf.strings.regex_full_match(shape, allowed),
        [tf.strings.join([f"expected {what} of shape [{wanted}] with N >= 1, got [", shape, "]"])],
    )
    with tf.control_dependencies([check]):
        return tf.identity(batch)


def check_pixel_range(images: tf.Tensor) -> tf.Tensor:
    """Returns `images`, float32 on the scale [-1, 1], after a check that they are: NaN and 0..255 are refused."""
    # An all over "inside" fails on NaN, which compares false; an any over "outside" would pass it.
    inside = tf.reduce_all(tf.abs(images) <= _ROUNDED_ONE)
    lowest, highest = (tf.strings.as_string(reduce(images)) for reduce in (tf.reduce_min, tf.reduce_max))
    message = ["expected finite floats in [-1, 1] (pixel / 127.5 - 1), got values from ", lowest, " to ", highest]
    with tf.control_dependencies([tf.debugging.Assert(inside, [tf.strings.join(message)])]):
        return tf.identity(images)


def parse_examples(serialized: tf.Tensor) -> tf.Tensor:
    """Takes the encoded images out of serialized tf.Examples, string [N] -> string [N].

    When it runs, InvalidArgumentError for what is no tf.Example or has no feature `image/encoded`.
    """
    # TensorFlow's own message repeats all bytes of what it can't parse. It is avoided for files that were sent bare:
    # a tf.Example begins with a line feed, the tag of its only field.
    plausible = tf.reduce_all(tf.strings.regex_full_match(tf.strings.substr(serialized, 0, 1), r"\n?"))
    message = (
        "expected serialized tf.Examples with `image/encoded`; bare JPEG or PNG files go to the signature `encoded`"
    )
    with tf.control_dependencies([tf.debugging.Assert(plausible, [message])]):
        serialized = tf.identity(serialized)
    return tf.io.parse_example(serialized, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})["image/encoded"]


def decode_images(encoded: tf.Tensor, image_shape: Sequence[int], max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes a batch of JPEG and PNG files, cropped at the centre and resized to the size of the network.

    The format and the size are read from the header and checked before anything is decoded. An image is turned as its
    EXIF data say, as in training. One of another size is cropped at its centre to the proportions of H x W, then
    resized bilinearly with antialiasing and rounded to whole
    pixel values; one of size H x W is taken as it is. Transparency is dropped, and 16 bit are cut to 8.

    Args:
        encoded: string [N], the bytes of JPEG or PNG files.
        image_shape: (H, W, C).
        max_pixels: largest accepted height x width.

    Returns:
        uint8 [N, H, W, C]. When it runs, InvalidArgumentError for a file that is neither JPEG nor PNG, is broken or has
        too many pixels.
    """
    return tf.map_fn(
        lambda index: _decode(encoded[index], tf.strings.as_string(index), image_shape, max_pixels),
        tf.range(tf.size(encoded)),
        fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
        parallel_iterations=_DECODED_TOGETHER,
    )


def _decode(encoded: tf.Tensor, index: tf.Tensor, image_shape: Sequence[int], max_pixels: int) -> tf.Tensor:
    """One file, a string scalar -> uint8 [H, W, C]; `index` is its place in the request, as text."""
    height, width, channels = image_shape
    header = tf.io.decode_raw(tf.strings.substr(encoded, 0, _HEADER_BYTES), tf.uint8, fixed_length=_HEADER_BYTES)
    is_jpeg = _holds(header, 0, _JPEG)
    is_png = _holds(header, 0, _PNG) & _holds(header, 12, _PNG_HEADER)
    length = tf.strings.as_string(tf.strings.length(encoded))
    known = tf.debugging.Assert(
        is_jpeg | is_png,
        [
            tf.strings.join(
                ["image ", index, " of the request is neither JPEG nor PNG (", length, " bytes): convert it to one"]
            )
        ],
    )
    with tf.control_dependencies([known]):
        encoded = tf.identity(encoded)
    # Of a JPEG the same library reads it that will decode it.
    size = tf.cond(
        is_jpeg, lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64), lambda: _big_endian(header[16:24])
    )
    rows, columns = size[0], size[1]
    # A quotient: a product of two numbers of 32 bits could overflow.
    fits = (rows >= 1) & (columns >= 1) & (rows <= max_pixels // tf.maximum(columns, 1))
    text = tf.strings.join([tf.strings.as_string(columns), " x ", tf.strings.as_string(rows)])
    small_enough = tf.debugging.Assert(
        fits,
        [tf.strings.join(["image ", index, " of the request has ", text, f" pixels, allowed are 1 to {max_pixels}"])],
    )
    with tf.control_dependencies([small_enough]):
        encoded = tf.identity(encoded)
    image = decoding.decode_image(encoded, channels)
    return tf.ensure_shape(_crop_and_resize(image, height, width), [height, width, channels])


def _holds(header: tf.Tensor, start: int, wanted: bytes) -> tf.Tensor:
    """Whether the bytes `wanted` stand at `start` of the header, uint8 [n]; a bool scalar."""
    return tf.reduce_all(tf.equal(header[start : start + len(wanted)], tf.constant(list(wanted), tf.uint8)))


def _big_endian(numbers: tf.Tensor) -> tf.Tensor:
    """Width and height out of a PNG, uint8 [8] -> (height, width), int64 [2]."""
    digits = tf.reshape(tf.cast(numbers, tf.int64), [2, 4])
    return tf.reverse(tf.reduce_sum(digits * tf.constant([2**24, 2**16, 2**8, 1], tf.int64), axis=1), axis=[0])


def _crop_and_resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """uint8 [any, any, C] -> uint8 [height, width, C]."""
    shape = tf.shape(image)

    def resized():
        crop_height = tf.maximum(1, tf.minimum(shape[0], shape[1] * height // width))
        crop_width = tf.maximum(1, tf.minimum(shape[1], shape[0] * width // height))
        top, left = (shape[0] - crop_height) // 2, (shape[1] - crop_width) // 2
        crop = image[top : top + crop_height, left : left + crop_width]
        # Antialiased: plain bilinear sampling of a large photo would skip most of its pixels.
        pixels = tf.image.resize(crop, [height, width], antialias=True)
        # Whole values, so that sending the resized image as uint8 pixels gives the same answer.
        return tf.cast(tf.round(pixels), tf.uint8)

    fits = tf.logical_and(tf.equal(shape[0], height), tf.equal(shape[1], width))
    return tf.cond(fits, lambda: image, resized)
