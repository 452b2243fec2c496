"""Where a preparation takes images from: a folder of images, or a set of tensorflow-datasets.

A source lists its images without decoding them. In both an image is a piece of a file, so that worker processes can
read it in any order, and without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from robgan_tf.data.checksums import listing_checksum
from robgan_tf.data.names import some
from robgan_tf.data.sources.class_folders import TEST, TRAIN, ClassFolders


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
        return cls(len(files), sum(size for _, size in files), listing_checksum(files))


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

    def remarks(self) -> list[str]:
        """Sentences about what was passed over in what was listed so far."""


class Folder:
    """A folder of images, as `class_folders` describes it.

    Args:
        root: the folder that holds train/ and val/.
        test_split: name of the held-out folder; None is "val", or "test" where there is none.

    Raises:
        ValueError: if folders are missing, hold no class folders, the held-out classes are none of train/, or names of
            classes can't be used.
    """

    def __init__(self, root: str, test_split: str | None = None):
        self._listed = ClassFolders(root, test_split)
        self._listed.check(())  # an incomplete train/ would give its classes other indices
        self.folders = {split: folder.resolve() for split, folder in self._listed.folders.items()}
        self.name = self._listed.root.resolve().name
        self.classes = self._listed.classes

    def listing(self, split: str, classes: Sequence[str]) -> Listing:
        """Reads names and sizes of the files, once."""
        self._listed.check(classes)
        return Listing.of(
            [(f"{name}/{file.name}", file.size) for name in classes for file in self._listed.files(split, name)]
        )

    def images(self, split: str, classes: Sequence[str], progress) -> list[Image]:
        """See `Source`; sorted by class and name."""
        folder = self._listed.folders[split]
        return [
            Image(f"{folder.name}/{file.path}", label, f"{folder}{os.sep}{file.path}", 0, file.size)
            for label, name in enumerate(classes)
            for file in self._listed.files(split, name)
        ]

    def remarks(self) -> list[str]:
        """See `ClassFolders.remarks`."""
        return self._listed.remarks()


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

    def remarks(self) -> list[str]:
        """None: all examples of the set are images."""
        return []

    def _records(self, tf, path: str):
        from robgan_tf.data import pipelines  # imports TensorFlow, which worker processes do without

        try:
            records = tf.data.TFRecordDataset(path, buffer_size=1 << 20).with_options(pipelines.options())
            yield from records.as_numpy_iterator()
        except tf.errors.OpError as error:
            raise ValueError(f"{path} is damaged ({error.message}); prepare the set again") from error
