"""Reads a split of a prepared tensorflow-datasets set into memory."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from robgan_tf.data import decoding, pipelines, preprocessing
from robgan_tf.data.datasets import READ_BATCH, Examples, with_progress

# What to do about a set that is too large for memory.
ADVICE = "prepare records with python -m robgan_tf.prepare --tfds"


def read_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_key: str,
    label_key: str,
    image_size: int | None,
    class_range: tuple[int, int] | None = None,
    min_side: int = 0,
    most_images: int | None = None,
    total: int | None = None,
) -> Examples:
    """Returns the images of a split, uint8 [N, H, W, C], and their labels, int32 [N], in the order of the set.

    Args:
        builder: of a prepared set.
        split: its name, slices such as "train[:10%]" included.
        image_key: name of the feature that is the image.
        label_key: name of the one that is the label.
        image_size: side to which the centre square is resized; None keeps the set's own size.
        class_range: first and last label to keep, both included, which become 0, 1, ...; None for all.
        min_side: drops images with a side under this many pixels.
        most_images: how many may be read; None for any number.
        total: how many there are, for lines on the progress.

    Raises:
        ValueError: where there are more than most_images.
    """
    feature = builder.info.features[image_key]
    decoders = {image_key: tfds.decode.SkipDecoding()}  # decoded below, after the filter
    dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    dataset = dataset.map(lambda example: (example[image_key], example[label_key]))
    first_class = 0
    if class_range is not None:
        # Before decoding: one ImageNet class in seven is wanted for ImageNet-143.
        first_class, last_class = class_range
        dataset = dataset.filter(lambda image, label: (label >= first_class) & (label <= last_class))

    @tf.autograph.experimental.do_not_convert
    def decode(encoded, label):
        image = decoding.decode_image(encoded, feature.shape[2])
        large_enough = tf.reduce_min(tf.shape(image)[:2]) >= min_side
        # Resizing here and dropping later keeps all work in the one parallel map.
        if image_size is not None and feature.shape[:2] != (image_size, image_size):
            image = preprocessing.centre_square(image, image_size)
        return image, tf.cast(label, tf.int32) - first_class, large_enough

    dataset = dataset.map(decode, num_parallel_calls=pipelines.cores(), deterministic=True)
    if min_side:
        dataset = dataset.filter(lambda image, label, large_enough: large_enough)
    dataset = dataset.batch(READ_BATCH).prefetch(2).with_options(pipelines.options())
    filtered = class_range is not None or min_side
    batches = with_progress(
        dataset.as_numpy_iterator(), f"{builder.name} {split}", None if filtered else total, lambda item: len(item[1])
    )
    pieces, labels, count = [], [np.zeros([0], np.int32)], 0
    for batch_images, batch_labels, _ in batches:
        count += len(batch_labels)
        if most_images is not None and count > most_images:
            raise ValueError(
                f"tfds_images: split {split!r} of {builder.name!r} does not fit in tfds_images.memory_limit_gib; "
                f"{ADVICE}, use a smaller image_size, fewer classes, or raise the limit."
            )
        pieces.append(batch_images)
        labels.append(batch_labels)
    return Examples(_joined(pieces, feature.shape[2]), np.concatenate(labels))


def _joined(pieces: list[np.ndarray], channels: int) -> np.ndarray:
    """np.concatenate that frees each piece as it goes, so a split is in memory once."""
    if not pieces:
        return np.zeros([0, 1, 1, channels], np.uint8)
    joined = np.empty([sum(map(len, pieces)), *pieces[0].shape[1:]], np.uint8)
    end = len(joined)
    while pieces:
        piece = pieces.pop()
        joined[end - len(piece) : end] = piece
        end -= len(piece)
    return joined
