"""Where `prepare_imagenet.py` takes images from: a folder of images, or a set of tensorflow-datasets.

A source lists its images without decoding them. In both an image is a piece of a file, so that worker processes can
read it in any order, and without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from robgan_tf.data.sources import pillow_images

TRAIN, TEST = "train", "test"


class Image(NamedTuple):
    """An encoded image.

    Attributes:
        name: what records and messages call it, such as train/n02086240/n02086240_7.JPEG.
        label: index into the classes of the selection.
        path: the file that holds it.
        offset: where in the file it begins.
        size: its length in bytes.
    """

    name: str
    label: int
    path: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of one split: equal listings are taken for equal data.

    Attributes:
        files: how many.
        bytes: their sizes, summed up.
        sha256: of their names and sizes.
    """

    files: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, files: Sequence[tuple[str, int]]) -> Listing:
        """Makes the listing of (name, size in bytes) pairs, in any order."""
        lines = (os.fsencode(name) + f"\0{size}\n".encode() for name, size in sorted(files))
        return cls(len(files), sum(size for _, size in files), hashlib.sha256(b"".join(lines)).hexdigest())


class Source(Protocol):
    """A set of images with a split to train on and a held-out one.

    Attributes:
        name: of the set, without its place.
        classes: names of all its classes.
    """

    name: str
    classes: Sequence[str]

    def listing(self, split: str, classes: Sequence[str]) -> Listing:
        """What identifies the data of `split`, TRAIN or TEST, of the given classes."""

    def images(self, split: str, classes: Sequence[str], progress) -> list[Image]:
        """All images of `split` that are of the given classes, in an order that is always the same.

        Raises:
            ValueError: where a class has none.
        """


class Folder:
    """A folder laid out like ImageNet: train/<class>/* and val/<class>/* (or test/ where there is no val/).

    Hidden files, and those whose suffix is not of `pillow_images.SUFFIXES`, are passed over.

    Args:
        root: the folder that holds train/ and val/.
        test_split: name of the held-out folder; None is "val", or "test" where there is none.

    Raises:
        ValueError: if folders are missing, hold no class folders, or the held-out classes are none of train/.
    """

    def __init__(self, root: str, test_split: str | None = None):
        self._root = pathlib.Path(root).expanduser().resolve()
        if not self._root.is_dir():
            raise ValueError(f"there is no folder {root}; --source must hold train/<class>/ and val/<class>/")
        test_split = test_split or ("val" if (self._root / "val").is_dir() else "test")
        if not (self._root / test_split).is_dir():
            raise ValueError(
                f"{root} has no folder {test_split}/ (or val/) of held-out images; name it with --test_split"
            )
        self.folders = {TRAIN: self._root / "train", TEST: self._root / test_split}
        self.name = self._root.name
        self.classes = self._class_folders(TRAIN)
        self._files: dict[str, dict[str, list[tuple[str, int]]]] = {TRAIN: {}, TEST: {}}
        unknown = sorted(set(self._class_folders(TEST)) - set(self.classes))
        if unknown:  # an incomplete train/ would give its classes other indices
            raise ValueError(f"{root}: {some(unknown)} of {test_split}/ are no folders of train/; is train/ complete?")

    def listing(self, split: str, classes: Sequence[str]) -> Listing:
        """Reads names and sizes of the files, once."""
        files = [(f"{name}/{file}", size) for name in classes for file, size in self._class_files(split, name)]
        return Listing.of(files)

    def images(self, split: str, classes: Sequence[str], progress) -> list[Image]:
        """See `Source`; sorted by class and name."""
        folder = self.folders[split]
        return [
            Image(f"{folder.name}/{name}/{file}", label, f"{folder}{os.sep}{name}{os.sep}{file}", 0, size)
            for label, name in enumerate(classes)
            for file, size in self._class_files(split, name)
        ]

    def _class_folders(self, split: str) -> list[str]:
        folder = self.folders[split]
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; --source must hold train/<class>/ and val/<class>/")
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        classes = sorted(entry.name for entry in entries if entry.is_dir())
        if not classes:
            found = "images, but no class folders" if any(map(_is_image, entries)) else "no class folders"
            raise ValueError(f"{folder} holds {found}; sort the images into {folder}/<class>/, such as n01440764/")
        return classes

    def _class_files(self, split: str, name: str) -> list[tuple[str, int]]:
        """Names and sizes of the image files of a class, sorted."""
        if name not in self._files[split]:
            folder = self.folders[split] / name
            if not folder.is_dir():
                raise ValueError(
                    f"{folder.parent} has no folder {name}, and train/ has one; add it or leave the class out"
                )
            files = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(folder) if _is_image(entry))
            if not files:
                suffixes = ", ".join(pillow_images.SUFFIXES)
                raise ValueError(f"{folder} holds no image ({suffixes}); add some or leave the class out")
            self._files[split][name] = files
        return self._files[split][name]


class TfdsSet:
    """A prepared image classification set of tensorflow-datasets, stored as TFRecords.

    Args:
        name: as in `tfds.load`, such as "imagenet2012" or "cifar10:3.0.2".
        data_dir: TFDS folder; None is ~/tensorflow_datasets.
        test_split: name of the held-out split; None is "validation", or "test" where there is none.

    Raises:
        ValueError: if the set is unknown, not prepared, or no such set.
    """

    def __init__(self, name: str, data_dir: str | None, test_split: str | None = None):
        import tensorflow_datasets as tfds  # here, and TensorFlow below: worker processes import this module too

        from robgan_tf.data.sources.digits import is_prepared

        try:
            builder = tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
        except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"--tfds={name} can't be used: {reason}") from error
        if not is_prepared(builder):
            raise ValueError(f"--tfds={name} is not prepared in {builder.data_dir}; set --tfds_dir to where it is")
        splits = builder.info.splits
        test_split = test_split or ("validation" if "validation" in splits else "test")
        missing = [split for split in ("train", test_split) if split not in splits]
        if missing:
            raise ValueError(f"--tfds={name} has no split {some(missing)}; it has {', '.join(sorted(splits))}")
        self._image_key, self._label_key = builder.info.supervised_keys or ("image", "label")
        features = dict(builder.info.features.items())
        image, label = features.get(self._image_key), features.get(self._label_key)
        usable = isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        if not usable or image.np_dtype != np.uint8:
            raise ValueError(
                f"--tfds={name} is no set of uint8 images with one label each: it has {', '.join(features)}"
            )
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            raise ValueError(f"--tfds={name} is stored as {builder.info.file_format.value}; prepare it as tfrecord")
        self._paths = {
            key: [os.fspath(path) for path in splits[split].filepaths]
            for key, split in ((TRAIN, "train"), (TEST, test_split))
        }
        self._counts = {TRAIN: splits["train"].num_examples, TEST: splits[test_split].num_examples}
        self.name = builder.info.full_name
        self.classes = list(label.names)

    def listing(self, split: str, classes: Sequence[str]) -> Listing:
        """Of the set's files, whichever the classes."""
        return Listing.of([(os.path.basename(path), os.path.getsize(path)) for path in self._paths[split]])

    def images(self, split: str, classes: Sequence[str], progress) -> list[Image]:
        """See `Source`; in stored order, named like `tfds_id`: <file>__<position>. Reads every file once."""
        import tensorflow as tf

        labels = {self.classes.index(name): label for label, name in enumerate(classes)}
        images = []
        with progress(self._counts[split], f"index of {split}") as bar:
            for path in self._paths[split]:
                start = 0
                for position, record in enumerate(self._records(tf, path)):
                    features = tf.train.Example.FromString(record).features.feature
                    index = features[self._label_key].int64_list.value[0]
                    encoded = features[self._image_key].bytes_list.value[0]
                    if not 0 <= index < len(self.classes):
                        raise ValueError(f"{path} has images without a label; name a split with labels: --test_split")
                    if index in labels:
                        # A record is its length (8 bytes), a checksum of it (4), the content, and a checksum (4).
                        offset = start + 12 + record.index(encoded)
                        name = f"{os.path.basename(path)}__{position}"
                        images.append(Image(name, labels[index], path, offset, len(encoded)))
                    start += 12 + len(record) + 4
                    bar.update()
        missing = [classes[label] for label in sorted(set(labels.values()) - {image.label for image in images})]
        if missing:
            raise ValueError(f"{self.name} has no image of {some(missing)} for {split}; leave the class out")
        return images

    def _records(self, tf, path: str):
        try:
            yield from tf.data.TFRecordDataset(path, buffer_size=1 << 20).as_numpy_iterator()
        except tf.errors.OpError as error:
            raise ValueError(f"{path} is damaged ({error.message}); prepare the set again") from error


def select_classes(wanted: str, classes: Sequence[str]) -> list[str]:
    """Chooses classes of a source.

    Args:
        wanted: "all"; "first:last", indices into `classes`, both included; names with commas between; or "@path", of a
            file with a name in each line.
        classes: those there are.

    Returns:
        The names, in the order of `classes`.

    Raises:
        ValueError: if a class is not there or named twice, or none is named.
    """
    count = len(classes)
    if wanted == "all":
        return list(classes)
    first, colon, last = wanted.partition(":")
    if colon and first.strip().isdigit() and last.strip().isdigit():
        if not int(first) <= int(last) < count:
            raise ValueError(
                f"--classes={wanted} does not fit: the source has {count} classes, 0:{count - 1} (ImageNet has 1000); "
                "give a range within, --classes=all, or names"
            )
        return list(classes[int(first) : int(last) + 1])
    names = _lines(wanted[1:], "--classes") if wanted.startswith("@") else wanted.split(",")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"--classes={wanted} names no class; give all, first:last, names, or @file with a name a line")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"--classes={wanted} names {some(repeated)} twice; name each class once")
    unknown = set(names) - set(classes)
    if unknown:
        close = difflib.get_close_matches(min(unknown), classes, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {some(classes)}"
        raise ValueError(f"--classes={wanted}: the source has no class {some(unknown)}; {hint}")
    return [name for name in classes if name in set(names)]


def readable_names(path: str, classes: Sequence[str]) -> list[str]:
    """Reads names for classes from lines "n01440764 tench, Tinca tinca", as in ImageNet's LOC_synset_mapping.txt.

    Args:
        path: the file.
        classes: the first words of the lines to look for.

    Returns:
        The rest of these lines, in the order of `classes`; where two are equal (there are two cranes), with the class
        behind.

    Raises:
        ValueError: if the file can't be read or lacks one of the classes.
    """
    names = dict(line.strip().partition(" ")[::2] for line in _lines(path, "--class_names") if line.strip())
    missing = [name for name in classes if not names.get(name, "").strip()]
    if missing:
        raise ValueError(
            f"--class_names={path} has no name for {some(missing)}; a line is: n01440764 tench, Tinca tinca"
        )
    chosen = [names[name].strip() for name in classes]
    return [f"{text} ({name})" if chosen.count(text) > 1 else text for name, text in zip(classes, chosen)]


def some(names: Collection[str]) -> str:
    """At most three names, for a message."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _lines(path: str, flag: str) -> list[str]:
    try:
        return pathlib.Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{flag}: can't read {path}: {error}") from error


def _is_image(entry: os.DirEntry) -> bool:
    name = entry.name
    return name.lower().endswith(pillow_images.SUFFIXES) and not name.startswith(".") and not entry.is_dir()
