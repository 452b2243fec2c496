"""Images in folders, one for each class."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import gin
import numpy as np
from absl import logging

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import (
    Examples,
    ImageData,
    check_image_size,
    check_memory,
    image_data,
    some,
    validation_cut,
)
from robgan_tf.data.description import listing_checksum, whereabouts
from robgan_tf.data.sources.image_files import ImageFiles, in_parallel
from robgan_tf.data.sources.pillow_images import SUFFIXES


@gin.configurable
@may_change("data_dir", "in_memory", "max_corrupt_share", "memory_limit_gib")
def image_folder(
    data_dir: str = gin.REQUIRED,
    image_size: int = gin.REQUIRED,
    channels: int = 3,
    in_memory: bool = True,
    validation_examples: int = 500,
    max_corrupt_share: float = 0.01,
    memory_limit_gib: float = 8.0,
    seed: int = 0,
) -> ImageData:
    """A folder laid out like ImageNet: train/<class>/* and val/<class>/* (or test/ where there is no val/).

    Files are decoded by Pillow: first frame, EXIF orientation applied, transparency ignored (as TensorFlow's decoder
    does), centre square, resized with antialiasing. Files of other types and hidden ones are passed over. All files are
    decoded once before training, so that broken ones are found then.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey; files of any other mode are converted.
        in_memory: whether to hold the training images in memory; otherwise each is decoded anew whenever it is drawn,
            and the batches are the same. Where decoding can't keep up with the training, prepare records instead, with
            tools/prepare_imagenet.py.
        validation_examples: how many images of train/ become the validation split; val/ is what ImageData calls test.
        max_corrupt_share: files that can't be decoded, or have a side under 8 pixels, are named in a warning and left
            out; a split with a larger share of them is refused.
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
        raise ValueError(
            f"image_folder: there is no folder {whereabouts(root)}; data_dir must hold train/<class>/ and val/<class>/"
        )
    held_out = root / "test" if (root / "test").is_dir() and not (root / "val").is_dir() else root / "val"
    train_files, test_files = _class_files(root / "train"), _class_files(held_out)
    class_names = sorted(train_files)
    if set(class_names) != set(test_files):
        raise ValueError(
            f"image_folder: classes differ between {root / 'train'} and {held_out}: "
            f"only in train: {some(set(train_files) - set(test_files))}; "
            f"only in {held_out.name}: {some(set(test_files) - set(train_files))}; make the folder names equal."
        )
    count = sum(map(len, test_files.values()))
    count += sum(map(len, train_files.values())) if in_memory else validation_examples
    in_pieces = "set image_folder.in_memory = False, prepare records with tools/prepare_imagenet.py"
    advice = in_pieces if in_memory else "use fewer images"
    check_memory("image_folder", str(root), count, image_size**2 * channels, memory_limit_gib, advice)
    settings = image_size, channels, max_corrupt_share
    train = _readable(root / "train", class_names, train_files, *settings, in_memory)
    test = _readable(held_out, class_names, test_files, *settings, in_memory=True)
    fingerprint = {
        f"{split}/{name}": listing_checksum((path.name, path.stat().st_size) for path in paths)
        for split, files in (("train", train_files), ("test", test_files))
        for name, paths in files.items()
    }
    if in_memory:
        return image_data(root.name, class_names, train, test, validation_examples, seed, fingerprint)
    chosen, kept = validation_cut(root.name, train.labels, validation_examples, seed)
    validation = train.select(chosen).read()
    return ImageData(root.name, tuple(class_names), train.select(kept), validation, test, fingerprint)


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
            f"{', '.join(SUFFIXES)}; add some or remove the folder."
        )
    return files


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _readable(
    folder: pathlib.Path,
    class_names: Sequence[str],
    files: dict[str, list[pathlib.Path]],
    image_size: int,
    channels: int,
    max_corrupt_share: float,
    in_memory: bool,
) -> Examples | ImageFiles:
    """Decodes all files of a split once; returns the images, or the files where they are not to stay in memory."""
    paths = [path for name in class_names for path in files[name]]
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), [len(files[name]) for name in class_names])
    split = ImageFiles(paths, labels, image_size, channels)
    images = np.empty([len(paths), *split.image_shape], np.uint8) if in_memory else None

    def read(index: int) -> str | None:
        try:
            image = split.decode(index)
        except ValueError as error:
            return str(error)
        if in_memory:
            images[index] = image
        return None

    results = list(in_parallel(read, range(len(paths)), str(folder)))
    corrupt = [message for message in results if message is not None]
    if len(corrupt) > max_corrupt_share * len(paths):
        raise ValueError(
            f"image_folder: {len(corrupt)} of {len(paths)} images in {folder} can't be decoded, over max_corrupt_share "
            f"= {max_corrupt_share}: {some(corrupt)}; replace or remove them, or raise the share."
        )
    if not corrupt:
        return Examples(images, labels) if in_memory else split
    logging.warning(
        "image_folder: left out %d of %d images in %s that can't be decoded: %s",
        len(corrupt),
        len(paths),
        folder,
        "; ".join(corrupt),
    )
    readable = np.flatnonzero([message is None for message in results])
    missing = set(range(len(class_names))) - set(labels[readable].tolist())
    if missing:
        raise ValueError(
            f"image_folder: every image of {some(class_names[i] for i in missing)} in {folder} is corrupt."
        )
    return (Examples(images, labels) if in_memory else split).select(readable)
