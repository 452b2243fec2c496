import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.data.sources.pillow_images import Filter, centre_square, decode, square_jpeg


def encoded(image, file_format="PNG", **settings):
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, file_format, **settings)
    return file.getvalue()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def smooth(height=40, width=56):
    """A picture that survives JPEG: a gradient in each channel."""
    rows, columns = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    channels = (rows + 0 * columns, 0 * rows + columns, (rows + columns) / 2)
    return np.stack(channels, axis=-1).astype(np.uint8)


def palette_with_transparency(rgb):
    image = PIL.Image.fromarray(rgb).quantize(256)
    image.info["transparency"] = 3
    return encoded(image, transparency=3)


def sixteen_bit_rgb(rgb):
    """A PNG of 16 bits in each channel, which Pillow can't write; the low byte is noise."""
    height, width, _ = rgb.shape
    pixels = (rgb.astype(np.uint16) * 256 + noise(*rgb.shape)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RGB = smooth()
GREY = np.asarray(PIL.Image.fromarray(RGB).convert("L"))


@pytest.mark.parametrize(
    "name, file, expected, tolerance",
    [
        ("RGB PNG", encoded(RGB), RGB, 0),
        ("RGB BMP", encoded(RGB, "BMP"), RGB, 0),
        ("16-bit RGB PNG", sixteen_bit_rgb(RGB), RGB, 0),
        ("grey PNG", encoded(GREY), np.stack([GREY] * 3, -1), 0),
        ("16-bit grey PNG", encoded(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1), 0),
        ("grey and alpha", encoded(PIL.Image.fromarray(np.stack([GREY, GREY // 3], -1), "LA")), GREY[..., None], 0),
        ("RGBA", encoded(np.concatenate([RGB, GREY[..., None] // 2], -1)), RGB, 0),
        ("palette", encoded(PIL.Image.fromarray(GREY).convert("P")), GREY[..., None], 0),
        ("palette with transparency", palette_with_transparency(RGB), RGB, 16),  # of the palette
        ("GIF", encoded(PIL.Image.fromarray(GREY), "GIF"), GREY[..., None], 0),
        ("1 bit", encoded(PIL.Image.fromarray(GREY > 99)), 255 * np.uint8(GREY > 99)[..., None], 0),
        ("WebP", encoded(RGB, "WEBP", lossless=True), RGB, 0),
        ("JPEG", encoded(RGB, "JPEG", quality=100, subsampling=0), RGB, 4),
        ("progressive JPEG", encoded(RGB, "JPEG", quality=100, subsampling=0, progressive=True), RGB, 4),
        ("grey JPEG", encoded(GREY, "JPEG", quality=100), GREY[..., None], 3),
        # Pillow writes CMYK inverted and with Adobe's marker, as all known programs do.
        ("CMYK JPEG", encoded(PIL.Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100), RGB, 4),
    ],
)
def test_every_mode_becomes_rgb(name, file, expected, tolerance):
    image = decode(file)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= tolerance
    assert decode(file, channels=1).mode == "L"


def test_a_cmyk_jpeg_has_adobes_marker_and_is_read_as_tensorflow_does():
    # Black in K alone, which Pillow's own conversion never writes: the inversion of all four channels shows.
    cmyk = np.stack([RGB[..., 0], RGB[..., 1], RGB[..., 2], GREY // 2], -1)
    file = encoded(PIL.Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100)
    assert b"Adobe" in file[:100]
    theirs = tf.io.decode_jpeg(file, channels=3).numpy().astype(int)
    assert np.abs(np.asarray(decode(file)).astype(int) - theirs).max() <= 4
    assert np.ptp(theirs) > 100


def test_the_first_frame_of_several_is_taken():
    frames = [PIL.Image.fromarray(GREY), PIL.Image.fromarray(255 - GREY)]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(decode(file, channels=1)), GREY)


# What to do to the stored pixels, by EXIF's definition: 2 mirrored, 3 turned by half, 4 upside down, 5 transposed, 6 to
# be turned clockwise, 7 transposed along the other diagonal, 8 to be turned anticlockwise.
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(RGB, exif=exif))
    np.testing.assert_array_equal(np.asarray(image), ORIENTATIONS[orientation](RGB))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_broken_exif_data_do_no_harm(exif):
    image = decode(encoded(RGB, "JPEG", quality=100, subsampling=0, exif=exif))
    assert np.abs(np.asarray(image).astype(int) - RGB).max() <= 4


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_image_is_refused_in_one_line(file_format, share):
    file = encoded(noise(40, 56, 3), file_format)
    with pytest.raises(ValueError) as caught:
        decode(file[: int(share * len(file))])
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", [b"", b"nothing", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(1000)])
@pytest.mark.parametrize("function", [decode, lambda file: square_jpeg(file, 16)])
def test_what_is_no_image_is_refused_with_the_same_words_every_time(file, function):
    messages = set()
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            function(file)
        messages.add(str(caught.value))
    (message,) = messages  # no address in memory, or manifests of equal folders would differ
    assert message and "0x" not in message


@pytest.mark.parametrize(
    "file, reason",
    [
        (b"\0\0\0\x18ftypheic" + bytes(100), "it is a HEIC image: convert it to JPEG or PNG"),
        (encoded(PIL.Image.new("F", (9, 9)), "TIFF"), "its pixels are 32-bit floats, of no known range"),
        (encoded(PIL.Image.new("I", (9, 9), 70000), "TIFF"), "its pixels are not within 16 bits"),
    ],
)
def test_why_a_file_can_not_be_decoded_is_said(file, reason):
    with pytest.raises(ValueError, match=reason):
        decode(file)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_flipped_bits_end_in_an_image_or_a_value_error():
    random = np.random.default_rng(1)
    for file_format in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        good = np.frombuffer(encoded(noise(24, 24, 3), file_format), np.uint8)
        for _ in range(40):
            bad = good.copy()
            bad[random.integers(0, len(bad), 8)] = random.integers(0, 256, 8)
            try:
                assert decode(bad.tobytes()).mode == "RGB"
            except ValueError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("height, width, top, left", [(9, 9, 0, 0), (20, 9, 5, 0), (9, 20, 0, 5), (30, 13, 8, 0)])
def test_the_square_is_cut_from_the_middle(height, width, top, left):
    array, side = noise(height, width, 3), min(height, width)
    square = centre_square(PIL.Image.fromarray(array), side)
    np.testing.assert_array_equal(np.asarray(square), array[top : top + side, left : left + side])


@pytest.mark.parametrize("resampling", [Filter.BOX, Filter.BILINEAR, Filter.HAMMING, Filter.BICUBIC, Filter.LANCZOS])
def test_pixels_beyond_the_square_have_no_influence_and_shrinking_antialiases(resampling):
    array = np.zeros([32, 64, 3], np.uint8)
    array[:, 16:48][(np.indices((32, 32)).sum(0) % 2) == 1] = 254  # a chess board of single pixels, mean 127
    array[:, :16] = array[:, 48:] = 255
    small = np.asarray(centre_square(PIL.Image.fromarray(array), 8, resampling)).astype(int)
    assert small.shape == (8, 8, 3) and np.abs(small - 127).max() <= 2


def test_a_box_filter_of_a_whole_factor_is_the_mean():
    array = noise(32, 32, 3)
    mean = array.reshape(8, 4, 8, 4, 3).mean((1, 3))
    small = np.asarray(centre_square(PIL.Image.fromarray(array), 8, Filter.BOX))
    assert np.abs(small - mean).max() <= 1  # rounded after each direction


def test_a_jpeg_of_the_right_size_keeps_its_bytes():
    file = encoded(smooth(16, 16), "JPEG", quality=30)
    assert square_jpeg(file, 16, min_side=16) is file


def turned(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(smooth(16, 16), "JPEG", quality=100, subsampling=0, exif=exif)


@pytest.mark.parametrize(
    "name, file, expected",
    [
        ("another size", encoded(smooth(40, 16), "JPEG", quality=100, subsampling=0), smooth(40, 16)[12:28]),
        ("another format", encoded(smooth(16, 16)), smooth(16, 16)),
        ("grey", encoded(GREY[:16, :16], "JPEG", quality=100), GREY[:16, :16, None]),
        ("turned", turned(6), np.rot90(smooth(16, 16), -1)),
    ],
)
def test_anything_else_becomes_an_rgb_jpeg_of_the_size(name, file, expected):
    answer = square_jpeg(file, 16, quality=100)
    with PIL.Image.open(io.BytesIO(answer)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (16, 16))
        assert "exif" not in image.info
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 6
    assert tf.io.decode_jpeg(answer).shape == (16, 16, 3)


def test_an_upright_mark_is_no_reason_to_compress_again():
    file = turned(1)
    assert square_jpeg(file, 16) is file


def test_a_truncated_jpeg_of_the_right_size_is_refused():
    file = encoded(noise(16, 16, 3), "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        square_jpeg(file[:-20], 16)


def test_quality_and_filter_have_their_effect():
    file = encoded(noise(64, 64, 3))
    sizes = [len(square_jpeg(file, 32, quality=quality)) for quality in (10, 50, 95)]
    assert sizes == sorted(set(sizes))
    assert square_jpeg(file, 32, filter=Filter.BOX) != square_jpeg(file, 32, filter=Filter.LANCZOS)


def test_small_images_are_told_from_unusable_ones():
    assert square_jpeg(encoded(noise(256, 255, 3)), 16, min_side=256) is None
    assert square_jpeg(encoded(noise(256, 256, 3)), 16, min_side=256) is not None
    assert square_jpeg(encoded(noise(8, 8, 3)), 16) is not None  # enlarged
    for height, width in ((1, 1), (7, 300), (300, 7)):
        with pytest.raises(ValueError, match=f"it has {width}x{height} pixels"):
            square_jpeg(encoded(noise(height, width, 3)), 16, min_side=256)


def test_worker_processes_of_a_preparation_do_not_need_tensorflow():
    code = "from robgan_tf import prepare; import sys; print('tensorflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
