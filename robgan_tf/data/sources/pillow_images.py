"""Encoded images decoded, cut square and resized by Pillow.

Does not import TensorFlow, so that worker processes which decode start at once.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageChops

# No photograph is smaller: an image with a smaller side is a placeholder or a leftover. In pixels.
SMALLEST_SIDE = 8

Filter = PIL.Image.Resampling

# The chunks of a PNG that decide its pixels. Pillow refuses files for the size of others, a colour profile or a text.
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

_ORIENTATION = 0x0112
# By TIFF's numbers for types.
_INTEGERS = {3: "H", 4: "I", 8: "H", 9: "I"}
# What to do with the stored pixels, by EXIF's numbers.
_TRANSPOSE = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def decode(encoded: bytes, channels: int = 3) -> PIL.Image.Image:
    """Decodes an image: first frame, EXIF orientation applied, transparency ignored as TensorFlow's decoder does.

    Args:
        encoded: the bytes of a file of any format that Pillow knows.
        channels: 3 for RGB, 1 for grey; images of any other mode (CMYK, palette, 16 bit, ...) are converted.

    Returns:
        An image of mode "RGB" or "L"; of a JPEG or PNG the pixels that `decoding.decode_image` gives, too.

    Raises:
        ValueError: if this is no image, or a broken or truncated one.
    """
    try:
        with _opened(encoded) as image:
            return _pixels(image, channels)
    except Exception as error:
        raise _unreadable(encoded, error) from error


def centre_square(image: PIL.Image.Image, size: int, filter: Filter = Filter.BILINEAR) -> PIL.Image.Image:
    """Cuts the largest square out of the middle and resizes it.

    Args:
        image: of any size; where the rest is odd, the smaller half is cut off at the left or the top.
        size: side of the result in pixels.
        filter: all of Pillow's, except NEAREST, antialias when the image shrinks.

    Returns:
        An image of size x size pixels and the mode of the given one.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cut first: with `box` the filter would take in pixels from beyond the square.
    return image.crop((left, top, left + side, top + side)).resize((size, size), filter)


def square_jpeg(
    encoded: bytes, size: int, *, min_side: int = 0, quality: int = 95, filter: Filter = Filter.LANCZOS
) -> bytes | None:
    """The centre square of an image as a JPEG in RGB, without colour subsampling.

    What is a JPEG of that size in RGB already is decoded as a check and returned as it is: to compress it a second time
    could only harm it.

    Args:
        encoded: the bytes of a file of any format that Pillow knows.
        size: side of the result in pixels.
        min_side: smallest side that is wanted, in pixels.
        quality: of the JPEG, 1..100.
        filter: of resizing, see `centre_square`.

    Returns:
        The bytes of the JPEG; None if a side of the image is under min_side.

    Raises:
        ValueError: if this is no image, a broken or truncated one, or one with a side under `SMALLEST_SIDE`.
    """
    try:
        with _opened(encoded) as image:  # reads no pixel yet
            width, height = image.size
            if min(width, height) < SMALLEST_SIDE:
                raise ValueError(f"it has {width}x{height} pixels")
            if min(width, height) < min_side:
                return None
            fits = (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
            unchanged = fits and _orientation(image) == 1
            pixels = _pixels(image, channels=3)
    except Exception as error:
        raise _unreadable(encoded, error) from error
    if unchanged:
        return encoded
    output = io.BytesIO()
    centre_square(pixels, size, filter).save(output, "JPEG", quality=quality, subsampling=0)
    return output.getvalue()


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1..8; 1 where they tell none or are broken.

    Nothing else in them is looked at: cameras and programs write many a value that no library reads, or writes again.

    Args:
        exif: from the byte order mark on.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
            tag, kind, numbers = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _ORIENTATION:
                if kind not in _INTEGERS or numbers != 1:
                    return 1
                (value,) = struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # too short, or no byte order mark
        pass
    return 1


def _opened(encoded: bytes) -> PIL.Image.Image:
    """An image of which no pixel is read yet."""
    if not encoded.startswith(_PNG):
        return PIL.Image.open(io.BytesIO(encoded))
    pixels, exif = _parts_of_png(encoded)
    image = PIL.Image.open(io.BytesIO(pixels))
    image.info["exif"] = exif
    return image


def _parts_of_png(png: bytes) -> tuple[bytes, bytes]:
    """The same PNG without what has no part in its pixels, and the EXIF data in front of them."""
    kept, exif, start = [png[: len(_PNG)]], None, len(_PNG)
    while start < len(png):
        name = png[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if name in _PNG_CHUNKS:
            kept.append(png[start:end])
        # Behind the pixels the served model would have to look for EXIF data through all chunks of these.
        if exif is None and name in (b"eXIf", b"IDAT"):
            exif = png[start + 8 : end - 4] if name == b"eXIf" else b""
        start = end
    return b"".join(kept), exif or b""


def _orientation(image: PIL.Image.Image) -> int:
    """Of an opened image; 1 for a TIFF, which Pillow turns by itself."""
    if image.format == "TIFF":
        return 1
    exif = image.info.get("exif", b"")
    return exif_orientation(exif[6:] if exif.startswith(b"Exif\0\0") else exif)


def _pixels(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """An opened image, decoded, upright and in "RGB" or "L"."""
    orientation = _orientation(image)
    image.load()
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for inverted, as Adobe writes it; without Adobe's mark it is not.
        image = PIL.ImageChops.invert(image)
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats, of no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255 instead of scaling
        levels = np.asarray(image).astype(np.int64)
        if not 0 <= levels.min() <= levels.max() < 2**16:
            raise ValueError("its pixels are not within 16 bits: save it with 8 or 16 bits")
        image = PIL.Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way Pillow asks for, in a warning otherwise
    return image.convert("RGB" if channels == 3 else "L")


def _unreadable(encoded: bytes, error: Exception) -> ValueError:
    """What Pillow raises on broken files differs by format: OSError, SyntaxError, EOFError, struct.error, ..."""
    if isinstance(error, PIL.UnidentifiedImageError):
        heif = encoded[4:8] == b"ftyp" and encoded[8:12] in (b"heic", b"heix", b"mif1", b"msf1")
        return ValueError("it is a HEIC image: convert it to JPEG or PNG" if heif else "it is no image")
    return ValueError(next(iter(str(error).splitlines()), "") or type(error).__name__)
