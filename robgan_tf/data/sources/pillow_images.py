"""Encoded images decoded, cut square and resized by Pillow.

Does not import TensorFlow, so that worker processes which decode start at once.
"""

from __future__ import annotations

import io

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

# Of the files of an image folder; others are passed over.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

# No photograph is smaller: an image with a smaller side is a placeholder or a leftover. In pixels.
SMALLEST_SIDE = 8

Filter = PIL.Image.Resampling


def decode(encoded: bytes, channels: int = 3) -> PIL.Image.Image:
    """Decodes an image: first frame, EXIF orientation applied, transparency ignored as TensorFlow's decoder does.

    Args:
        encoded: the bytes of a file of any format that Pillow knows.
        channels: 3 for RGB, 1 for grey; images of any other mode (CMYK, palette, 16 bit, ...) are converted.

    Returns:
        An image of mode "RGB" or "L".

    Raises:
        ValueError: if this is no image, or a broken or truncated one.
    """
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            return _pixels(image, channels)
    except Exception as error:
        raise _unreadable(error) from error


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
        with PIL.Image.open(io.BytesIO(encoded)) as image:  # reads no pixel yet
            width, height = image.size
            if min(width, height) < SMALLEST_SIDE:
                raise ValueError(f"it has {width}x{height} pixels")
            if min(width, height) < min_side:
                return None
            fits = (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
            unchanged = fits and _orientation(image) == 1
            pixels = _pixels(image, channels=3)
    except Exception as error:
        raise _unreadable(error) from error
    if unchanged:
        return encoded
    output = io.BytesIO()
    centre_square(pixels, size, filter).save(output, "JPEG", quality=quality, subsampling=0)
    return output.getvalue()


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data that can't be read tell nothing; the pixels may be good all the same
        return 1


def _pixels(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """An opened image, decoded, upright and in "RGB" or "L"."""
    image.load()
    if _orientation(image) != 1:
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255 instead of scaling
        image = PIL.Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way Pillow asks for, in a warning otherwise
    return image.convert("RGB" if channels == 3 else "L")


def _unreadable(error: Exception) -> ValueError:
    """What Pillow raises on broken files differs by format: OSError, SyntaxError, EOFError, struct.error, ..."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return ValueError("it is no image" if isinstance(error, PIL.UnidentifiedImageError) else text)
