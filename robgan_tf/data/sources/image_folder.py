"""Images in folders, one for each class."""

from __future__ import annotations

import pathlib

import gin
import numpy as np
from absl import logging

from robgan_tf.bindings import may_change
from robgan_tf.data.checksums import listing_checksum
from robgan_tf.data.datasets import (
    Examples,
    ImageData,
    check_image_size,
    check_memory,
    image_data,
    validation_cut,
)
from robgan_tf.data.description import whereabouts
from robgan_tf.data.expected import MissingDataError
from robgan_tf.data.names import some
from robgan_tf.data.sources.class_folders import TEST, TRAIN, ClassFolders, ImageFile
from robgan_tf.data.sources.image_files import ImageFiles, in_parallel
from robgan_tf.paths import local_path
from robgan_tf.values import checked, number, switch, whole


@gin.configurable
@may_change("data_dir", "in_memory", "max_corrupt_share", "memory_limit_gib")
@checked(
    image_size=whole(1),
    in_memory=switch(),
    validation_examples=whole(0),
    max_corrupt_share=number(least=0, most=1),
    memory_limit_gib=number(above=0),
    seed=whole(0),
)
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
    """A folder laid out like ImageNet: train/<class>/... and val/<class>/... (or test/ where there is no val/).

    What is read, Tiny ImageNet's layout included, is in `class_folders`; what is left out is counted in a warning.
    Files are decoded by Pillow: first frame, EXIF orientation applied, transparency ignored (as TensorFlow's decoder
    does), centre square, resized with antialiasing. All files are decoded once before training, so that broken ones are
    found then.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey; files of any other mode are converted.
        in_memory: whether to hold the training images in memory; otherwise each is decoded anew whenever it is drawn,
            and the batches are the same. Where decoding can't keep up with the training, prepare records instead, with
            python -m robgan_tf.prepare.
        validation_examples: how many images of train/ become the validation split; val/ is what ImageData calls test.
        max_corrupt_share: files that can't be decoded, or have a side under 8 pixels, are named in a warning and left
            out; a split with a larger share of them is refused.
        memory_limit_gib: refuses to hold more than this.
        seed: of the choice of validation images.

    Returns:
        ImageData; class names are the sorted folder names of train/, images [image_size, image_size, channels].

    Raises:
        ValueError: if folders or images are missing, classes differ between the splits, too many files are corrupt,
            the images are too large for memory, validation takes all of a class, or a number is out of its range.
    """
    check_image_size("image_folder", image_size)
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels must be 3 (RGB) or 1 (grey), got {channels}.")
    root = pathlib.Path(local_path(data_dir, "image_folder.data_dir"))
    if not root.is_dir():
        raise MissingDataError(
            f"image_folder: there is no folder {whereabouts(root)}; data_dir must hold train/<class>/ and val/<class>/"
        )
    try:
        listed = ClassFolders(root)
        listed.check(listed.classes)
        files = {split: {name: listed.files(split, name) for name in listed.classes} for split in (TRAIN, TEST)}
    except (ValueError, OSError) as error:
        raise ValueError(f"image_folder: {error}.") from error
    for remark in listed.remarks():
        logging.warning("image_folder: %s", remark)
    class_names, counts = listed.classes, {split: sum(map(len, of.values())) for split, of in files.items()}
    count = counts[TEST] + (counts[TRAIN] if in_memory else validation_examples)
    in_pieces = "set image_folder.in_memory = False, prepare records with python -m robgan_tf.prepare"
    advice = in_pieces if in_memory else "use fewer images"
    check_memory("image_folder", str(root), count, image_size**2 * channels, memory_limit_gib, advice)
    settings = image_size, channels, max_corrupt_share
    train = _readable(listed.folders[TRAIN], files[TRAIN], *settings, in_memory)
    test = _readable(listed.folders[TEST], files[TEST], *settings, in_memory=True)
    fingerprint = {
        f"{split}/{name}": listing_checksum((file.name, file.size) for file in of_class)
        for split, by_class in files.items()
        for name, of_class in by_class.items()
    }
    if in_memory:
        return image_data(root.name, class_names, train, test, validation_examples, seed, fingerprint)
    chosen, kept = validation_cut(root.name, class_names, train.labels, validation_examples, seed)
    validation = train.select(chosen).read()
    return ImageData(root.name, tuple(class_names), train.select(kept), validation, test, fingerprint)


def _readable(
    folder: pathlib.Path,
    files: dict[str, list[ImageFile]],
    image_size: int,
    channels: int,
    max_corrupt_share: float,
    in_memory: bool,
) -> Examples | ImageFiles:
    """Decodes all files of a split once; returns the images, or the files where they are not to stay in memory."""
    class_names = list(files)
    paths = [folder / file.path for of_class in files.values() for file in of_class]
    labels = np.repeat(np.arange(len(files), dtype=np.int32), list(map(len, files.values())))
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
