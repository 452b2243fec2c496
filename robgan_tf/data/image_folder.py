"""Images in folders, one for each class."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import pathlib
from collections.abc import Sequence

import gin
import numpy as np
import PIL.Image
import PIL.ImageOps
from absl import logging

from robgan_tf.data.datasets import (
    Examples,
    ImageData,
    check_image_size,
    check_memory,
    first_line,
    image_data,
    some,
    with_progress,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


@gin.configurable
def image_folder(
    data_dir: str = gin.REQUIRED,
    image_size: int = gin.REQUIRED,
    channels: int = 3,
    validation_examples: int = 500,
    max_corrupt_share: float = 0.01,
    memory_limit_gib: float = 8.0,
    seed: int = 0,
) -> ImageData:
    """A folder laid out like ImageNet: train/<class>/* and val/<class>/* (or test/ where there is no val/).

    Files are decoded by Pillow: first frame, EXIF orientation applied, transparency ignored (as TensorFlow's decoder
    does), centre square, resized with antialiasing. Files of other types and hidden ones are passed over.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey; files of any other mode are converted.
        validation_examples: how many images of train/ become the validation split; val/ is what ImageData calls test.
        max_corrupt_share: files that can't be decoded are named in a warning and left out; a split with a larger share
            of them is refused.
        memory_limit_gib: refuses to hold more than this.
        seed: of the choice of validation images.

    Returns:
        ImageData; class names are the sorted folder names of train/, images [image_size, image_size, channels].

    Raises:
        ValueError: if folders or images are missing, classes differ between the splits, too many files are corrupt,
            the images are too large for memory, or a number is out of its range.
    """
    check_image_size("image_folder", image_size)
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels must be 3 (RGB) or 1 (grey), got {channels}.")
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise ValueError(f"image_folder: there is no folder {root}; data_dir must hold train/<class>/ and val/<class>/")
    held_out = root / "test" if (root / "test").is_dir() and not (root / "val").is_dir() else root / "val"
    train_files, test_files = _class_files(root / "train"), _class_files(held_out)
    class_names = sorted(train_files)
    if set(class_names) != set(test_files):
        raise ValueError(
            f"image_folder: classes differ between {root / 'train'} and {held_out}: "
            f"only in train: {some(set(train_files) - set(test_files))}; "
            f"only in {held_out.name}: {some(set(test_files) - set(train_files))}; make the folder names equal."
        )
    count = sum(map(len, itertools.chain(train_files.values(), test_files.values())))
    check_memory("image_folder", str(root), count, image_size * image_size * channels, memory_limit_gib)
    train = _read_folder(root / "train", class_names, train_files, image_size, channels, max_corrupt_share)
    test = _read_folder(held_out, class_names, test_files, image_size, channels, max_corrupt_share)
    return image_data(root.name, class_names, train, test, validation_examples, seed)


def _class_files(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Image files by class, both sorted by name."""
    if not folder.is_dir():
        raise ValueError(f"image_folder: there is no folder {folder}; expected {folder}/<class>/*.jpg (or .png, ...).")
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        found = "images, but no class folders" if any(map(_is_image, entries)) else "no class folders"
        raise ValueError(f"image_folder: {folder} holds {found}; sort the images into {folder}/<class>/.")
    files = {entry.name: sorted(filter(_is_image, entry.iterdir())) for entry in classes}
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise ValueError(
            f"image_folder: no images in {some(empty)} of {folder}; expected files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}; add some or remove the folder."
        )
    return files


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_folder(
    folder: pathlib.Path,
    class_names: Sequence[str],
    files: dict[str, list[pathlib.Path]],
    image_size: int,
    channels: int,
    max_corrupt_share: float,
) -> Examples:
    paths = [path for name in class_names for path in files[name]]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), [len(files[name]) for name in class_names])
    images = np.empty([len(paths), image_size, image_size, channels], np.uint8)

    def read(index: int) -> str | None:
        try:
            images[index] = _decoded(paths[index], image_size, channels)
            return None
        # What Pillow raises on broken files, by format: SyntaxError on PNG chunks, ValueError and EOFError on GIF.
        except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
            return f"{paths[index]} ({first_line(error)})"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of the GIL
        results = list(with_progress(pool.map(read, range(len(paths))), str(folder), len(paths)))
    readable = np.array([message is None for message in results])
    corrupt = [message for message in results if message is not None]
    if len(corrupt) > max_corrupt_share * len(paths):
        raise ValueError(
            f"image_folder: {len(corrupt)} of {len(paths)} images in {folder} can't be decoded, over max_corrupt_share "
            f"= {max_corrupt_share}: {some(corrupt)}; replace or remove them, or raise the share."
        )
    if corrupt:
        logging.warning(
            "image_folder: left out %d of %d images in %s that can't be decoded: %s",
            len(corrupt),
            len(paths),
            folder,
            "; ".join(corrupt),
        )
        missing = set(range(len(class_names))) - set(labels[readable].tolist())
        if missing:
            raise ValueError(
                f"image_folder: every image of {some(class_names[i] for i in missing)} in {folder} is corrupt."
            )
        images, labels = images[readable], labels[readable]
    return Examples(images, labels)


def _decoded(path: pathlib.Path, image_size: int, channels: int) -> np.ndarray:
    """uint8 [image_size, image_size, channels] of one file."""
    with PIL.Image.open(path) as file:
        image = PIL.ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255 instead of scaling
            image = PIL.Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # the way Pillow asks for, in a warning otherwise
        image = image.convert("RGB" if channels == 3 else "L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((image_size, image_size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels)
