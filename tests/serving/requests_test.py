"""Images that a stranger might send: taken as they should be, or refused with a message; never a crash."""

import io
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.serving import requests

SHAPE = (12, 12, 3)
LIMIT = 10_000


@pytest.fixture(scope="module")
def decode():
    """encoded -> uint8 [N, 12, 12, 3], for at most LIMIT pixels."""
    function = tf.function(
        lambda encoded: requests.decode_images(encoded, SHAPE, LIMIT),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return lambda *encoded: function(tf.constant(encoded)).numpy()


def image(height=12, width=12, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, channels], np.uint8)


def encode(pixels, form="PNG", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(file, form, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits=8, colour=2, rows=b""):
    """A PNG with any header over compressed `rows`."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_the_alpha_of_a_png_is_dropped(decode):
    pixels = image(channels=4)
    np.testing.assert_array_equal(decode(encode(pixels))[0], pixels[..., :3])


def test_a_png_of_16_bits_is_cut_to_8(decode):
    values = np.random.default_rng(0).integers(0, 2**16, [12, 12, 3])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(decode(png(12, 12, bits=16, rows=rows))[0], values >> 8)


def test_grey_and_palette_become_colour(decode):
    grey = image(channels=1)
    np.testing.assert_array_equal(decode(encode(grey))[0], np.repeat(grey, 3, axis=2))
    palette = PIL.Image.fromarray(image()).quantize(16)
    file = io.BytesIO()
    palette.save(file, "PNG")
    np.testing.assert_array_equal(decode(file.getvalue())[0], np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 1}])
def test_jpegs_of_all_makes_are_decoded(decode, options):
    file = encode(image(12, 12), "JPEG", **options)
    difference = decode(file)[0].astype(int) - np.asarray(PIL.Image.open(io.BytesIO(file)))
    assert np.abs(difference).max() <= 40  # the two libraries smooth the colours differently


@pytest.mark.parametrize("form", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_refused_by_name_of_those_that_are_taken(decode, form):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 1 of the request is neither JPEG nor PNG"):
        decode(encode(image()), encode(image(), form))


def test_an_animated_gif_is_refused(decode):
    file = io.BytesIO()
    frames = [PIL.Image.fromarray(image(seed=seed)) for seed in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="neither JPEG nor PNG"):
        decode(file.getvalue())


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_limit_of_pixels_holds_exactly(decode, form):
    assert decode(encode(image(100, 100), form)).shape == (1, *SHAPE)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="image 0 of the request has 101 x 100 pixels, allowed are 1 to 10000"
    ):
        decode(encode(image(100, 101), form))


@pytest.mark.parametrize(
    ("width", "height"), [(0, 5), (5, 0), (2**31, 2**31), (2**32 - 1, 2**32 - 1), (2**16, 2**16), (1, 2**32 - 1)]
)
def test_sizes_that_would_overflow_are_refused(decode, width, height):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"has {width} x {height} pixels, allowed are"):
        decode(png(width, height))


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    # 225 megapixels of black in 0.7 MB: decoded, it would take 644 MiB and a second.
    bomb = png(15_000, 15_000, rows=(b"\0" + bytes(45_000)) * 15_000)
    assert len(bomb) < 1_000_000
    function = tf.function(lambda encoded: requests.decode_images(encoded, SHAPE), autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="has 15000 x 15000 pixels, allowed are 1 to 16777216"):
        function(tf.constant([bomb]))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_file_cut_anywhere_is_refused(decode, form):
    file = encode(image(30, 30), form)
    # Without the end mark alone, the pixels of a PNG are all there.
    for length in range(0, len(file) - 20, 37):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            decode(file[:length])
        assert re.search("image 0 of the request|Invalid (PNG|JPEG)", error.value.message)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 99)])
def test_extreme_proportions_are_cropped_and_resized(decode, size):
    assert decode(encode(image(*size))).shape == (1, *SHAPE)


def test_the_range_of_floats_lets_gradients_through_and_refuses_nan():
    function = tf.function(requests.check_pixel_range, input_signature=[tf.TensorSpec([None, 2])])
    good = tf.constant([[-1.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(good)
        answer = function(good)
    np.testing.assert_array_equal(tape.gradient(answer, good), [[1, 1]])
    for bad in (np.nan, np.inf, -np.inf, 1.1, 255):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected finite floats in"):
            function(tf.constant([[0.0, bad]]))
