"""Labelled images in .npz files of any size: sets of generated images, or images from elsewhere.

Such a file is a zip of arrays. What is stored without compression (`np.savez`, and the files of a million images and
more that the field shares) lies in one piece in it, so that images are read in place: no more of a file of 15 GB is in
memory than the system likes to keep.
"""

from __future__ import annotations

import dataclasses
import struct
import zipfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.data.files import written_aside

# The names that the arrays have in files from here, and in those of others.
_IMAGES, _LABELS = ("images", "image"), ("labels", "label")
# Of a zip's local header: what it begins with, its size without the two texts behind it, the place of their lengths.
_LOCAL_HEADER, _LOCAL_HEADER_SIZE, _LENGTHS_AT = b"PK\x03\x04", 30, 26


@dataclasses.dataclass(frozen=True, eq=False)
class MappedExamples(Examples):
    """Labelled images of which the file is read in place, see `Examples`; `images` is a `np.memmap`."""

    def gather(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Examples.gather`."""

        def read(rows):
            # From the beginning of the file to its end, which disks like better.
            unique, places = np.unique(rows, return_inverse=True)
            return np.asarray(self.images[unique])[places.reshape(rows.shape)], self.labels[rows]

        images, labels = tf.numpy_function(read, [rows], [tf.uint8, tf.int32], stateful=False)
        return tf.ensure_shape(images, [*rows.shape, *self.image_shape]), tf.ensure_shape(labels, rows.shape)


class SampleFile:
    """The arrays of an .npz file, not yet read.

    Attributes:
        path: the file.
        shape: (N, H, W, C) of the images.
        labels: int32 [N], or None where the file has none.
        compressed: whether the images are compressed, and can't be read in place.

    Args:
        path: an .npz file with `images` (or `image`) uint8 [N, H, W, C] in 0..255 and `labels` (or `label`), integers
            [N], which may be missing.

    Raises:
        ValueError: for a file that is none, that is cut short, or that holds something else.
    """

    def __init__(self, path: str):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._images = _member(archive, _IMAGES)
                if self._images is None:
                    raise KeyError(_IMAGES[0])
                with archive.open(self._images) as file:
                    self.shape, dtype, self._header = _array_header(file)
                labels = _member(archive, _LABELS)
                if labels is not None:
                    with archive.open(labels) as file:
                        labels = np.lib.format.read_array(file, allow_pickle=False)
            if len(self.shape) == 4 and self._images.file_size != self._header + np.prod(self.shape) * dtype.itemsize:
                raise zipfile.BadZipFile("the array is not as large as it says")
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise ValueError(_unreadable(path, error)) from error
        self.compressed = self._images.compress_type != zipfile.ZIP_STORED
        if len(self.shape) != 4 or dtype != np.uint8 or not self.shape[0]:
            raise ValueError(
                f"{path}: images must be uint8 of shape [N, H, W, C] with N > 0, got {dtype} of shape "
                f"{list(self.shape)}."
            )
        self.labels = None
        if labels is not None:
            if labels.shape != self.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
                raise ValueError(
                    f"{path}: labels must be integers of shape [{self.shape[0]}], one for each image, got "
                    f"{labels.dtype} of shape {list(labels.shape)}."
                )
            if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
                raise ValueError(f"{path}: labels are from {labels.min()} to {labels.max()}, classes count from 0.")
            self.labels = labels.astype(np.int32)

    def map(self) -> np.memmap:
        """Returns the images in place, uint8 [N, H, W, C].

        Raises:
            ValueError: where they are compressed.
        """
        if self.compressed:
            raise ValueError(
                f"{self.path}: its images are compressed, and can't be read in place; unpack them once with "
                f"python -m robgan_tf.prepare --samples={self.path} --out=FILE.npz."
            )
        with open(self.path, "rb") as file:
            file.seek(self._images.header_offset + _LENGTHS_AT)
            lengths = struct.unpack("<HH", file.read(4))
        begin = self._images.header_offset + _LOCAL_HEADER_SIZE + sum(lengths) + self._header
        return np.memmap(self.path, np.uint8, "r", begin, self.shape)

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yields the images in order, uint8 [b, H, W, C] with b <= `size`, compressed or not; checks the zip's sum.

        Raises:
            ValueError: where the file is damaged.
        """
        image = int(np.prod(self.shape[1:]))
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._images) as file:
                file.read(self._header)
                for begin in range(0, self.shape[0], size):
                    count = min(size, self.shape[0] - begin)
                    data = file.read(count * image)
                    yield np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])
                file.read(1)  # the end, where the sum is compared
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(_unreadable(self.path, error)) from error


def read_samples(path: str, num_classes: int) -> MappedExamples:
    """Returns a sample set whose images stay in the file, see `SampleFile` and `SampleFile.map`.

    Args:
        path: the file.
        num_classes: number of classes of the data that the set is used with.

    Raises:
        ValueError: for a file that is none, that is compressed, that has no labels, or others than the data's.
    """
    file = SampleFile(path)
    images = file.map()
    if file.labels is None:
        raise ValueError(
            f"{path} has no labels: let a classifier find them, once, with python -m robgan_tf.prepare "
            f"--samples={path} --classifier=EXPORT --out=FILE.npz."
        )
    if file.labels.max() >= num_classes:
        raise ValueError(
            f"{path}: labels are from {file.labels.min()} to {file.labels.max()}, the data has the classes 0 to "
            f"{num_classes - 1}: take samples of a generator of the same data."
        )
    return MappedExamples(images, file.labels)


def write_sample_file(path: str, images: Iterator[np.ndarray], labels: np.ndarray, image_shape: tuple[int, int, int]):
    """Writes a file for `SampleFile` as the images come; only a chunk is in memory. Written aside and renamed.

    Args:
        path: the file.
        images: chunks, uint8 [b, H, W, C]; N in all.
        labels: int32 [N].
        image_shape: (H, W, C).
    """
    with written_aside(path) as partial, zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, labels, allow_pickle=False)
        with archive.open("images.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *image_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in images:
                file.write(np.ascontiguousarray(chunk).tobytes())


def _member(archive: zipfile.ZipFile, names: tuple[str, ...]) -> zipfile.ZipInfo | None:
    members = {info.filename: info for info in archive.infolist()}
    return next((members[f"{name}.npy"] for name in names if f"{name}.npy" in members), None)


def _array_header(file) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of the array that an .npy member holds, and the bytes before its first element."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of .npy")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(file)
    if in_columns or dtype.hasobject:
        raise ValueError("no plain array of images")
    return shape, dtype, file.tell()


def _unreadable(path: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = "it is not such a file"
        with open(path, "rb") as file:
            if isinstance(error, zipfile.BadZipFile) and file.read(len(_LOCAL_HEADER)) == _LOCAL_HEADER:
                reason = f"it is cut short or damaged, with {file.seek(0, 2):,} bytes: fetch it again"
    return (
        f"{path} can't be read ({reason}): it must be an .npz file with images and labels, as "
        f"python -m robgan_tf.sample --run_dir=R --what=samples --out=FILE.npz writes it."
    )
