"""Training (Pillow) and the served model (TensorFlow alone) see the same pixels in a file, whatever its kind."""

import functools
import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tensorflow as tf

from robgan_tf.data import decoding
from robgan_tf.data.sources import pillow_images
from robgan_tf.data.sources.image_files import ImageFiles
from robgan_tf.serving.requests import decode_images

# Of Pillow, about metadata.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HEIGHT, WIDTH = 41, 57
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GREY = RGB[..., 0].copy()
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def encoded(image, file_format="PNG", **settings):
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, file_format, **settings)
    return file.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(png, name, content, before=b"IDAT"):
    """A PNG with another chunk in front of the first one of the name `before`."""
    place = png.index(before) - 4
    return png[:place] + chunk(name, content) + png[place:]


def png(pixels, depth, colour_type, interlaced=False):
    """A PNG of a kind that Pillow can't write; pixels [H, W, channels] of `depth` bits."""
    height, width, channels = pixels.shape

    def rows(part):
        bits = (part.reshape(len(part), -1, 1) >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.reshape(len(part), -1).astype(np.uint8), axis=1)
        return b"".join(b"\0" + row.tobytes() for row in packed)

    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [pixels]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    pieces = zlib.compress(b"".join(rows(part) for part in parts if part.size))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pieces) + chunk(b"IEND", b"")


def exif(orientation, order="<", kind="H", padding=0):
    """EXIF data of a camera's making: resolutions that no library reads, and the orientation."""
    short, long = f"{order}H", f"{order}I"
    entries = [
        (0x010F, 2, 4, b"abc\0"),
        (0x0112, {"H": 3, "I": 4}[kind], 1, struct.pack(order + kind, orientation).ljust(4, b"\0")),
        (0x011A, 10, 1, struct.pack(long, 8)),  # a signed rational
        (0x011B, 2, 3, b"72\0\0"),  # text
        (0x8769, 2, 9, b"\xff\xff\xff\xff"),  # a folder that is a text, far outside
    ]
    body = b"".join(
        struct.pack(short, tag) + struct.pack(short, kind) + struct.pack(long, count) + value
        for tag, kind, count, value in entries
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + padding
    return mark + struct.pack(long, start) + bytes(padding) + struct.pack(short, len(entries)) + body + bytes(4)


def _text(size):
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * size, zip=True)
    return info


def _palette(colours=200):
    return PIL.Image.fromarray(RGB).quantize(colours)


def _cmyk():
    return PIL.Image.fromarray(np.concatenate([RGB, GREY[..., None] // 2], -1), "CMYK")


def _without_adobe(jpeg):
    """A CMYK JPEG without the mark that says that its levels are inverted."""
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def _jpeg(**settings):
    return encoded(RGB, "JPEG", **settings)


# Decoded alike by training and by the served model: to the bit, or as far apart as `APART` says.
SERVED = {
    "JPEG 4:4:4": _jpeg(subsampling=0),
    "JPEG 4:2:2": _jpeg(subsampling=1),
    "JPEG 4:2:0": _jpeg(subsampling=2),
    "JPEG of low quality": _jpeg(quality=5),
    "progressive JPEG": _jpeg(progressive=True),
    "grey JPEG": encoded(GREY, "JPEG"),
    "CMYK JPEG": encoded(_cmyk(), "JPEG"),
    "CMYK JPEG, not inverted": _without_adobe(encoded(_cmyk(), "JPEG")),
    "JPEG with a colour profile": _jpeg(icc_profile=bytes(range(256)) * 1200),
    "MPO, of two pictures": encoded(
        PIL.Image.fromarray(RGB), "MPO", save_all=True, append_images=[PIL.Image.fromarray(255 - RGB)]
    ),
    "PNG RGB": encoded(RGB),
    "PNG RGBA": encoded(np.concatenate([RGB, GREY[..., None]], -1)),
    "PNG RGB with a transparent colour": encoded(PIL.Image.fromarray(RGB), transparency=tuple(RGB[0, 0].tolist())),
    "PNG L": encoded(GREY),
    "PNG L with a transparent level": encoded(GREY, transparency=100),
    "PNG LA": encoded(PIL.Image.fromarray(RGB[..., :2].copy(), "LA")),
    "PNG P": encoded(_palette()),
    "PNG P of 4 bits": encoded(_palette(13), bits=4),
    "PNG P with a transparent colour": encoded(_palette(), transparency=3),
    "PNG P with levels of transparency": encoded(_palette(), transparency=bytes(range(200))),
    "PNG of 1 bit": encoded(PIL.Image.fromarray(GREY > 99)),
    "PNG of 2 bits": png(GREY[..., None] >> 6, 2, 0),
    "PNG of 4 bits": png(GREY[..., None] >> 4, 4, 0),
    "PNG of 16 bits, grey": encoded(PIL.Image.fromarray(GREY.astype(np.uint16) * 250 + 7)),
    "PNG of 16 bits, RGB": png(RGB.astype(np.uint16) * 250 + 7, 16, 2),
    "PNG of 16 bits, RGBA": png(np.concatenate([RGB, RGB[..., :1]], -1).astype(np.uint16) * 250 + 7, 16, 6),
    "PNG of 16 bits, LA": png(RGB[..., :2].astype(np.uint16) * 250 + 7, 16, 4),
    "interlaced PNG": png(RGB, 8, 2, interlaced=True),
    "interlaced PNG of 2 bits": png(GREY[..., None] >> 6, 2, 0, interlaced=True),
    "animated PNG": encoded(
        PIL.Image.fromarray(RGB), save_all=True, append_images=[PIL.Image.fromarray(255 - RGB)], duration=100
    ),
    "PNG with a gamma": with_chunk(encoded(RGB), b"gAMA", struct.pack(">I", 100000)),
    "PNG with a large colour profile": encoded(PIL.Image.fromarray(RGB), icc_profile=bytes(3 << 20)),
    "PNG with a large text": encoded(PIL.Image.fromarray(RGB), pnginfo=_text(3 << 20)),
    "PNG with a large text, turned": with_chunk(
        encoded(PIL.Image.fromarray(RGB), pnginfo=_text(3 << 20)), b"eXIf", exif(6)
    ),
    "PNG with a wrong checksum of a text": with_chunk(encoded(RGB), b"tEXt", b"Comment\0good").replace(
        b"good", b"bad!"
    ),
    "PNG with a wrong checksum of EXIF data": with_chunk(encoded(RGB), b"eXIf", exif(6)).replace(b"abc\0", b"abd\0"),
    "PNG with EXIF data behind the pixels": with_chunk(encoded(RGB), b"eXIf", exif(3), before=b"IEND"),
    **{f"JPEG, orientation {number}": _jpeg(exif=b"Exif\0\0" + exif(number)) for number in range(10)},
    **{f"PNG, orientation {number}": with_chunk(encoded(RGB), b"eXIf", exif(number)) for number in range(10)},
    "grey JPEG, orientation 6": encoded(GREY, "JPEG", exif=b"Exif\0\0" + exif(6, ">")),
    "JPEG, orientation in 32 bits": _jpeg(exif=b"Exif\0\0" + exif(6, ">", "I")),
    "JPEG, orientation far behind": _jpeg(exif=b"Exif\0\0" + exif(5, padding=60000)),
    "JPEG, orientation in XMP alone": _jpeg(
        xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    ),
    "JPEG, with something behind it": _jpeg() + b"\0\0\0\x18ftypmp42" + bytes(range(256)),
    "JPEG, torn EXIF data": _jpeg(exif=b"Exif\0\0" + exif(5)[:20]),
    "JPEG, EXIF data without any": _jpeg(exif=b"Exif\0\0"),
    "JPEG, EXIF data that are none": _jpeg(exif=b"Exif\0\0nonsense and more of it"),
    "JPEG, EXIF data that point outside": _jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
}
# Pillow multiplies C, M and Y by K with rounding, TensorFlow cuts off.
APART = {"CMYK JPEG": 1, "CMYK JPEG, not inverted": 1}

# Read in training alone: the served model answers that they are neither JPEG nor PNG.
TRAINED_ALONE = {
    "GIF": encoded(_palette(), "GIF"),
    "animated GIF": encoded(_palette(), "GIF", save_all=True, append_images=[PIL.Image.fromarray(255 - RGB)]),
    "BMP": encoded(RGB, "BMP"),
    "WebP": encoded(RGB, "WEBP", lossless=True),
    "TIFF": encoded(RGB, "TIFF"),
    "TIFF of 16 bits": encoded(PIL.Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
    "PPM": encoded(RGB, "PPM"),
}

# EXIF's definition: 2 mirrored, 3 turned by half, 4 upside down, 5 transposed, 6 to be turned clockwise, 7 transposed
# along the other diagonal, 8 to be turned anticlockwise; others say nothing.
ORIENTATIONS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.fixture(scope="module", params=[3, 1])
def channels(request):
    return request.param


@pytest.fixture(scope="module")
def decode(channels):
    """TensorFlow's decoding, as a graph: that is how it is served."""
    graph = tf.function(lambda file: decoding.decode_image(file, channels), [tf.TensorSpec([], tf.string)])
    return functools.cache(lambda file: graph(tf.constant(file)).numpy().astype(int))


@pytest.fixture(scope="module")
def serve(channels):
    """Decodes files, cuts and resizes them to 16 x 16 as the served model does."""
    graph = tf.function(lambda files: decode_images(files, (16, 16, channels)), [tf.TensorSpec([None], tf.string)])
    return lambda files: graph(tf.constant(files)).numpy().astype(int)


@pytest.fixture(scope="module")
def served(serve):
    """The whole table in one request, by kind."""
    return dict(zip(SERVED, serve(list(SERVED.values()))))


def trained_on(file, channels, tmp_path, size=16):
    """What a folder of images gives for a file."""
    (tmp_path / "file.jpg").write_bytes(file)
    return ImageFiles([tmp_path / "file.jpg"], np.zeros([1], np.int32), size, channels).decode(0).astype(int)


def pixels(file, channels):
    image = np.asarray(pillow_images.decode(file, channels)).astype(int)
    return image.reshape(*image.shape[:2], channels)


@pytest.mark.parametrize("kind", SERVED)
def test_training_and_the_served_model_decode_alike(kind, decode, channels):
    ours, theirs = pixels(SERVED[kind], channels), decode(SERVED[kind])
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= APART.get(kind, 0)


@pytest.mark.parametrize("kind", SERVED)
def test_they_cut_and_resize_alike_to_one_level(kind, served, channels, tmp_path):
    # Pillow rounds after each of the two directions, TensorFlow once: under 3/2 apart, so one level.
    ours, theirs = trained_on(SERVED[kind], channels, tmp_path), served[kind]
    assert np.abs(ours - theirs).max() <= 1 + APART.get(kind, 0)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_both_turn_an_image_as_exif_defines_it(file_format, orientation, decode, channels):
    file = SERVED[f"{file_format}, orientation {orientation}"]
    # Without EXIF data Pillow writes the same pixels.
    upright = pixels(encoded(RGB, file_format), channels)
    expected = ORIENTATIONS.get(orientation, lambda a: a)(upright)
    np.testing.assert_array_equal(pixels(file, channels), expected)
    np.testing.assert_array_equal(decode(file), expected)


@pytest.mark.parametrize("kind", TRAINED_ALONE)
def test_the_first_frame_of_other_formats_is_trained_on_and_refused_by_the_served_model(kind, serve, channels):
    expected = RGB
    if "GIF" in kind:
        expected = np.asarray(PIL.Image.fromarray(RGB).quantize(200).convert("RGB"))
    elif "16 bits" in kind:
        expected = np.stack([GREY] * 3, -1)
    if channels == 1:
        expected = np.asarray(PIL.Image.fromarray(expected).convert("L"))[..., None]
    np.testing.assert_array_equal(pixels(TRAINED_ALONE[kind], channels), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 0 of the request is neither JPEG nor PNG"):
        serve([TRAINED_ALONE[kind]])


def test_both_read_the_same_orientation_out_of_flipped_bytes():
    graph = tf.function(decoding.exif_orientation, [tf.TensorSpec([], tf.string)])
    random, found = np.random.default_rng(0), set()
    for order in "<>":
        for _ in range(150):
            data = np.frombuffer(exif(int(random.integers(1, 9)), order, random.choice(["H", "I"])), np.uint8).copy()
            places = random.integers(0, 40, random.integers(0, 3))
            data[places] = random.integers(0, 256, len(places))
            data = data[: random.integers(20, len(data) + 1)].tobytes()
            ours = pillow_images.exif_orientation(data)
            assert ours == graph(tf.constant(data)).numpy(), data
            found.add(ours)
    assert found == set(range(1, 9))


@pytest.mark.parametrize("file", [_jpeg()[:-2], _jpeg()[:900], b"\r\n" + _jpeg(), encoded(RGB)[:900], b""])
def test_what_one_refuses_the_other_one_refuses_too(file, serve):
    with pytest.raises(ValueError):
        pillow_images.decode(file)
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve([file])
