"""Makes a sample set fit for training: unpacks and joins files, labels images, keeps what a classifier is sure of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np

from robgan_tf.data.datasets import with_progress
from robgan_tf.data.sources.sample_files import SampleFile, write_sample_file

# Images that are read, classified and written at once.
BATCH = 250


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """What `prepare_samples` has written.

    Attributes:
        counts: number of images of each class.
        confidence: the lowest and the highest probability of an image's label by the classifier; None without one.
        predicted: how many labels are the classifier's.
    """

    counts: list[int]
    confidence: tuple[float, float] | None
    predicted: int


def prepare_samples(
    paths: Sequence[str], out: str, logits: Callable | None = None, most_confident: int | None = None
) -> SampleSet:
    """Writes one file for `read_samples` of several, in their order, uncompressed; a chunk at a time is in memory.

    Args:
        paths: files, see `SampleFile`, of images of one size.
        out: the file to write, none of `paths`.
        logits: a classifier, images uint8 [B, H, W, C] -> logits float32 [B, K]. It labels the images of files without
            labels, with the likeliest class.
        most_confident: how many images of each class to keep: those whose labels have the highest probability by the
            classifier. Equal ones in the order of the files. None for all.

    Raises:
        ValueError: for files that can't be read or do not fit each other or the classifier, for labels that are missing
            and more images than there are, without a classifier or of a class. Nothing is written then.
    """
    if not os.path.basename(out).endswith(".npz"):
        raise ValueError(f"--out={out} must name an .npz file.")
    if any(os.path.exists(out) and os.path.samefile(path, out) for path in paths if os.path.exists(path)):
        raise ValueError(f"--out={out} is one of the files to read: choose another name.")
    files = [SampleFile(path) for path in paths]
    for file in files:
        if file.shape[1:] != files[0].shape[1:]:
            raise ValueError(
                f"{file.path}: images are of shape {file.shape[1:]}, those of {files[0].path} {files[0].shape[1:]}."
            )
        if file.labels is None and logits is None:
            raise ValueError(f"{file.path} has no labels: name a classifier that finds them, --classifier=EXPORT.")
    if logits is None:
        if most_confident is not None:
            raise ValueError("--most_confident needs a classifier that says how sure it is: --classifier=EXPORT.")
        labels, confidence = np.concatenate([file.labels for file in files]), None
        classes = labels.max() + 1
    else:
        labels, confidence, classes = _classified(files, logits)
    kept = np.arange(len(labels))
    if most_confident is not None:
        kept = most_confident_rows(labels, confidence, classes, most_confident)
    write_sample_file(out, _rows(files, kept), labels[kept], files[0].shape[1:])
    extremes = None if confidence is None else (float(confidence[kept].min()), float(confidence[kept].max()))
    begins = np.cumsum([0, *(file.shape[0] for file in files)])
    predicted = sum(
        int(np.sum((kept >= begin) & (kept < begin + file.shape[0])))
        for begin, file in zip(begins, files)
        if file.labels is None
    )
    return SampleSet(np.bincount(labels[kept], minlength=classes).tolist(), extremes, predicted)


def most_confident_rows(labels: np.ndarray, confidence: np.ndarray, num_classes: int, count: int) -> np.ndarray:
    """Returns the rows, rising, of the `count` images of each class with the highest confidence.

    Args:
        labels: int [N], within 0 .. num_classes - 1.
        confidence: float [N].
        num_classes: number of classes.
        count: of each class; of equal ones the first are taken.

    Raises:
        ValueError: where a class has fewer images.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < count:
        raise ValueError(
            f"--most_confident={count} is more than there are: class {counts.argmin()} has {counts.min()} images. Use "
            f"{counts.min()} or fewer, or more images."
        )
    order = np.lexsort((-confidence, labels))
    begins = np.cumsum(counts) - counts
    return np.sort(np.concatenate([order[begin : begin + count] for begin in begins]))


def _classified(files: Sequence[SampleFile], logits: Callable) -> tuple[np.ndarray, np.ndarray, int]:
    """The labels of all images, the probability of each, and the number of classes."""
    labels, confidence, classes = [], [], None
    total = sum(file.shape[0] for file in files)
    chunks = ((file, chunk) for file in files for chunk in _with_labels(file))
    for file, (images, given) in with_progress(chunks, "the classifier's answers", total, lambda one: len(one[1][0])):
        found = np.asarray(logits(images), np.float64)
        classes = found.shape[1]
        if given is not None and given.max() >= classes:
            raise ValueError(
                f"{file.path}: labels are up to {file.labels.max()}, the classifier has the classes 0 to {classes - 1}."
            )
        given = found.argmax(axis=1) if given is None else given
        found -= found.max(axis=1, keepdims=True)
        probabilities = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
        labels.append(given.astype(np.int32))
        confidence.append(np.take_along_axis(probabilities, given[:, np.newaxis].astype(int), axis=1)[:, 0])
    return np.concatenate(labels), np.concatenate(confidence), classes


def _with_labels(file: SampleFile) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for index, images in enumerate(file.chunks(BATCH)):
        yield images, None if file.labels is None else file.labels[index * BATCH : index * BATCH + len(images)]


def _rows(files: Sequence[SampleFile], kept: np.ndarray) -> Iterator[np.ndarray]:
    """The images of the rows `kept`, which rise, of all files one behind the other."""
    chosen = np.zeros(sum(file.shape[0] for file in files), bool)
    chosen[kept] = True
    begin = 0
    chunks = (chunk for file in files for chunk in file.chunks(BATCH))
    for images in with_progress(chunks, "images", len(chosen), len):
        yield images[chosen[begin : begin + len(images)]]
        begin += len(images)
