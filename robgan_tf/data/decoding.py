"""JPEG and PNG files decoded by TensorFlow alone, to the same pixels as `sources.pillow_images` gives.

Training reads most files with Pillow, and the served model with TensorFlow: where the two differ, the classifier is
shown what it was never trained on. So both take the accurate inverse transform of JPEG (the default of TensorFlow is a
faster one, up to 6 levels of 256 away), the orientation of the EXIF data, and the same formula for grey.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Of ITU-R 601-2 in 1/65536, as Pillow has them; they add up to 65536, so that grey images keep their levels.
_RED, _GREEN, _BLUE = 19595, 38470, 7471

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
# Integers of 16 and of 32 bits, by TIFF's numbers for types.
_SHORTS, _LONGS = (3, 8), (4, 9)
# Bytes of a file that is looked through as a whole.
_SMALL_FILE = 1 << 14
# Metadata in front of the pixels that are looked through: a colour profile alone may take 255 segments.
_MOST_SEGMENTS = 1000
# Of the search for them.
_END = np.int64(-1)


def decode_image(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes one file and turns it upright.

    Args:
        encoded: the bytes of a JPEG or PNG (or of a BMP or GIF, of which the first frame is taken), a string scalar.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 [H, W, channels]; transparency is dropped and 16 bits are cut to 8. When it runs, InvalidArgumentError for
        a file that is broken or anything else.
    """
    is_jpeg = _is_jpeg(encoded)
    image = _decode(encoded, is_jpeg)

    def turned():
        exif = tf.cond(is_jpeg, lambda: _exif_of_jpeg(encoded), lambda: _exif_of_png(encoded))
        return upright(image, exif_orientation(exif))

    return _of_channels(tf.cond(_may_have_exif(encoded), turned, lambda: image), channels)


def decode_jpeg(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """As `decode_image`, of a JPEG that is upright as it is stored."""
    return _of_channels(_decode_jpeg(encoded), channels)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image [H, W, C] as an EXIF orientation says, a scalar: 1 as it is, ..., 8 anticlockwise."""

    def where(orientations, change, image):
        return tf.cond(tf.reduce_any(tf.equal(orientation, orientations)), lambda: change(image), lambda: image)

    image = where([5, 6, 7, 8], lambda image: tf.transpose(image, [1, 0, 2]), image)
    image = where([2, 3, 6, 7], lambda image: image[:, ::-1], image)
    return where([3, 4, 7, 8], lambda image: image[::-1], image)


def exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in EXIF data; `pillow_images.exif_orientation` does the same.

    Args:
        exif: a string scalar, from the byte order mark on.

    Returns:
        int64 scalar, 1..8; 1 where the data tell none or are broken.
    """
    big_endian = tf.equal(tf.strings.substr(exif, 0, 4), b"MM\0*")
    known = big_endian | tf.equal(tf.strings.substr(exif, 0, 4), b"II*\0")

    def number(numbers):  # uint8 [n, bytes] as int64 -> int64 [n]
        numbers = tf.cond(big_endian, lambda: numbers, lambda: numbers[:, ::-1])
        return tf.reduce_sum(numbers * [256**place for place in reversed(range(numbers.shape[1]))], axis=1)

    start = number(_bytes(exif, 4, 4)[tf.newaxis])[0]
    whole = (_length(exif) - start - 2) // 12
    count = tf.minimum(number(_bytes(exif, start, 2)[tf.newaxis])[0], whole)
    entries = tf.strings.substr(exif, _within(exif, start + 2), 12 * tf.maximum(count, 0))
    entries = tf.reshape(tf.cast(tf.io.decode_raw(entries, tf.uint8), tf.int64), [-1, 12])
    entries = tf.boolean_mask(entries, tf.equal(number(entries[:, :2]), _ORIENTATION))[:1]
    kind = number(entries[:, 2:4])
    short, long = (tf.reduce_any(tf.equal(kind[:, tf.newaxis], kinds), axis=1) for kinds in (_SHORTS, _LONGS))
    value = tf.where(short, number(entries[:, 8:10]), tf.where(long, number(entries[:, 8:12]), 1))
    usable = known & tf.equal(number(entries[:, 4:8]), 1) & (value >= 1) & (value <= 8)
    return tf.reduce_max(tf.concat([[1], tf.where(usable, value, 1)], axis=0))


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")


def _decode(encoded: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    image = tf.cond(
        is_jpeg,
        lambda: _decode_jpeg(encoded),
        # Without expand_animations=False the result has no static rank, as a GIF would be a batch of frames.
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    # Always in colour: of a grey result libjpeg would leave out the conversion to RGB, and of CMYK it makes none.
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _of_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 [H, W, 3] -> uint8 [H, W, channels]."""
    if channels == 3:
        return image
    weighted = tf.cast(image, tf.int32) * [_RED, _GREEN, _BLUE]
    grey = tf.bitwise.right_shift(tf.reduce_sum(weighted, axis=-1, keepdims=True) + 0x8000, 16)
    return tf.cast(grey, tf.uint8)


def _may_have_exif(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file may have EXIF data: it has their name somewhere, or is large.

    To go from segment to segment takes twice the time of decoding a small image, and to look for a word hardly any.
    """
    return tf.cond(
        _length(encoded) > _SMALL_FILE,
        lambda: tf.constant(True),
        lambda: tf.strings.regex_full_match(encoded, r"\C*(Exif|eXIf)\C*"),  # \C is any byte
    )


def _exif_of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF data of a JPEG, a string scalar; empty where there are none in front of the pixels."""

    def step(position, start, length):
        head = _bytes(encoded, position, 10)
        fill = tf.equal(head[1], 0xFF)
        found = tf.equal(head[1], 0xE1) & tf.reduce_all(tf.equal(head[4:], list(_EXIF)))
        ends = tf.not_equal(head[0], 0xFF) | tf.equal(head[1], 0xDA) | tf.equal(head[1], 0xD9)
        size = 256 * head[2] + head[3]
        following = tf.where(fill, position + 1, position + 2 + size)
        return (
            tf.where(ends | found, _END, following),
            tf.where(found, position + 10, start),
            tf.where(found, size - 8, length),
        )

    return _found(encoded, 2, step)


def _exif_of_png(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF data of a PNG, a string scalar; empty where there are none in front of the pixels."""

    def step(position, start, length):
        head = _bytes(encoded, position, 8)
        size = tf.reduce_sum(head[:4] * [2**24, 2**16, 2**8, 1])
        found, pixels, end = (tf.reduce_all(tf.equal(head[4:], list(name))) for name in (b"eXIf", b"IDAT", b"IEND"))
        return (
            tf.where(found | pixels | end, _END, position + 12 + size),
            tf.where(found, position + 8, start),
            tf.where(found, size, length),
        )

    return _found(encoded, 8, step)


def _found(encoded: tf.Tensor, first: int, step) -> tf.Tensor:
    """The piece of `encoded` that `step` finds, going from segment to segment; the position _END ends the search."""
    size = _length(encoded)
    _, start, length = tf.while_loop(
        lambda position, start, length: (position >= 0) & (position < size),
        step,
        [tf.constant(number, tf.int64) for number in (first, 0, 0)],
        maximum_iterations=_MOST_SEGMENTS,
    )
    return tf.strings.substr(encoded, _within(encoded, start), tf.maximum(length, 0))


def _bytes(encoded: tf.Tensor, start: tf.Tensor | int, count: int) -> tf.Tensor:
    """int64 [count]: some bytes of a string scalar, zeros behind its end."""
    piece = tf.strings.substr(encoded, _within(encoded, start), tf.constant(count, tf.int64))
    return tf.cast(tf.ensure_shape(tf.io.decode_raw(piece, tf.uint8, fixed_length=count), [count]), tf.int64)


def _within(encoded: tf.Tensor, position: tf.Tensor | int) -> tf.Tensor:
    return tf.minimum(tf.cast(position, tf.int64), _length(encoded))


def _length(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(encoded), tf.int64)
