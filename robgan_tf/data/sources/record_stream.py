"""Labelled JPEGs in TFRecords, read as a stream in an order that is a function of the seed and of the pass alone."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from robgan_tf.data import decoding, order, pipelines
from robgan_tf.data.datasets import (
    READ_BATCH,
    Examples,
    TrainingSplit,
    check_count,
    stratified_order,
    with_progress,
)
from robgan_tf.data.names import first_line
from robgan_tf.data.sources import dataset_manifest

# Shards that are read at once and in turn, so that the shuffle buffer holds a mixture even of shards sorted by class,
# and how many records one of them gives before it is the next one's turn: reading ahead in one file is cheap.
CYCLE_LENGTH, BLOCK_LENGTH = 16, 8
# Bytes read from a shard at once: one request to a network file system, where 256 KiB (the default) would be many.
READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Records(TrainingSplit):
    """Labelled JPEGs in TFRecords, read as a stream.

    In each pass over them the shards come in a new order, several at a time and in turn, and go through a buffer from
    which records are drawn at random. The buffer holds encoded images (128 px: about 8 KiB each), and what comes
    before the first step is skipped before it is decoded.

    Attributes:
        paths: of the shards.
        class_counts: number of records of each class.
        image_size: side of the images in pixels.
        channels: 3 for RGB, 1 for grey.
        shuffle_buffer: records in the buffer; 1 leaves only the shards shuffled.

    Raises:
        ValueError: if shuffle_buffer is not positive.
    """

    paths: tuple[str, ...]
    class_counts: tuple[int, ...]
    image_size: int
    channels: int = 3
    shuffle_buffer: int = 16384

    def __post_init__(self):
        if self.shuffle_buffer < 1:
            raise ValueError(f"tfrecord_images: shuffle_buffer must be 1 record or more, got {self.shuffle_buffer}.")

    def __len__(self) -> int:
        return sum(self.class_counts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.image_size, self.image_size, self.channels)

    def counts(self, num_classes: int) -> list[int]:
        """See `TrainingSplit`; those of the manifest."""
        del num_classes
        return list(self.class_counts)

    def raw_batches(self, batch_size: int, *, first_step: int, steps: int, seed: int, rows: range) -> tf.data.Dataset:
        first = first_step * batch_size
        passes = range(first // len(self), -(-steps * batch_size // len(self)))
        records = self._passes(passes, seed).skip(first % len(self))
        # Cut into batches while encoded: what other workers decode is not decoded here.
        records = records.batch(batch_size, drop_remainder=True)

        @tf.autograph.experimental.do_not_convert
        def own_rows(serialized):
            return self._parse(serialized[rows.start : rows.stop])

        images = records.map(own_rows, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()
        images = images.map(self._decode, num_parallel_calls=pipelines.cores(), deterministic=True)
        return images.batch(len(rows), drop_remainder=True).take(steps - first_step)

    def take(self, count: int, seed: int = 0) -> Examples:
        check_count("Records", count)
        if count >= len(self):
            return self.read()
        labels = np.repeat(np.arange(len(self.class_counts), dtype=np.int32), self.class_counts)
        labels = labels[stratified_order(labels, seed)[:count]]
        # The first records of each class in a pass of their own take the places of that class.
        places = [np.flatnonzero(labels == label)[::-1].tolist() for label in range(len(self.class_counts))]
        encoded, names, missing = [b""] * count, [b""] * count, count
        stream = self._passes(range(-1, 0), seed).batch(READ_BATCH).map(self._parse)
        for batch in _elements(stream, self._folder):
            for image, label, name in zip(*batch):
                if places[label]:
                    place = places[label].pop()
                    encoded[place], names[place] = image, name
                    missing -= 1
            if not missing:
                break
        else:
            raise self._miscounted()
        chosen = tf.constant(encoded, tf.string), labels, tf.constant(names, tf.string)
        return self._in_memory([(tf.data.Dataset.from_tensor_slices(chosen), self._folder)], count)

    def read(self) -> Examples:
        """All records in stored order, decoded into memory.

        Raises:
            ValueError: if a record is not what the manifest says (names the shard), or their number is another.
        """
        shards = (tf.data.TFRecordDataset(path, buffer_size=READ_BYTES).batch(READ_BATCH) for path in self.paths)
        shards = (shard.map(self._parse).unbatch() for shard in shards)
        return self._in_memory(zip(shards, self.paths), len(self))

    @property
    def _folder(self) -> str:
        return os.path.dirname(self.paths[0])

    def _passes(self, numbers: range, seed: int) -> tf.data.Dataset:
        """All records once for each number, serialized, in an order that is a function of (seed, number)."""

        @tf.autograph.experimental.do_not_convert
        def one_pass(number):
            # Of this function's graph alone: otherwise the process's global seed would have a say in the shuffling.
            tf.random.set_seed(1)
            shards = order.fold_in(order.stream(seed, order.SHARDS), number)
            paths = tf.random.experimental.stateless_shuffle(tf.constant(self.paths), shards)
            # In one thread, which reads 50,000 records a second. Several, new ones in each pass, would leave what the
            # shuffle buffer frees in as many heaps: 1.3 GiB after ten passes over 12,000 images, and not 0.6.
            records = tf.data.Dataset.from_tensor_slices(paths).interleave(
                lambda path: tf.data.TFRecordDataset(path, buffer_size=READ_BYTES),
                cycle_length=CYCLE_LENGTH,
                block_length=BLOCK_LENGTH,
                num_parallel_calls=None,
            )
            draws = tf.random.stateless_uniform(
                [], order.fold_in(order.stream(seed, order.RECORDS), number), None, None, tf.int64
            )
            return records.shuffle(self.shuffle_buffer, seed=draws, reshuffle_each_iteration=False)

        return tf.data.Dataset.range(numbers.start, numbers.stop).flat_map(one_pass)

    @tf.autograph.experimental.do_not_convert
    def _parse(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Serialized records [N] -> encoded images [N], int32 labels [N], names of their sources [N]."""
        features = {
            dataset_manifest.ENCODED: tf.io.FixedLenFeature([], tf.string),
            dataset_manifest.LABEL: tf.io.FixedLenFeature([], tf.int64),
            dataset_manifest.SOURCE_NAME: tf.io.FixedLenFeature([], tf.string, ""),
        }
        record = tf.io.parse_example(serialized, features)
        labels = record[dataset_manifest.LABEL]
        known = (labels >= 0) & (labels < len(self.class_counts))
        message = f"a record has a label that is none of the {len(self.class_counts)} classes of the manifest"
        tf.debugging.Assert(tf.reduce_all(known), [message, tf.boolean_mask(labels, ~known)])
        return record[dataset_manifest.ENCODED], tf.cast(labels, tf.int32), record[dataset_manifest.SOURCE_NAME]

    @tf.autograph.experimental.do_not_convert
    def _decode(self, encoded: tf.Tensor, label: tf.Tensor, name: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One encoded image -> uint8 [H, W, C], and its label."""
        image = decoding.decode_jpeg(encoded, self.channels)
        message = f"a record holds no image of {self.image_size}x{self.image_size} pixels, as the manifest says, but"
        shape = tf.shape(image)
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(shape == self.image_shape), [message, shape, name])]
        ):
            return tf.ensure_shape(image, self.image_shape), label

    def _in_memory(self, sources: Iterable[tuple[tf.data.Dataset, str]], count: int) -> Examples:
        """Decodes the elements of datasets, as `_parse` gives them, one dataset after the other.

        Each dataset comes with what messages call it.
        """
        images, labels = np.empty([count, *self.image_shape], np.uint8), np.empty([count], np.int32)

        def batches():
            for encoded, name in sources:
                decoded = encoded.map(self._decode, num_parallel_calls=pipelines.cores(), deterministic=True)
                yield from _elements(decoded.batch(READ_BATCH).prefetch(2), name)

        done = 0
        for batch_images, batch_labels in with_progress(batches(), self._folder, count, lambda batch: len(batch[1])):
            end = done + len(batch_labels)
            if end <= count:
                images[done:end], labels[done:end] = batch_images, batch_labels
            done = end
        if done != count:
            raise self._miscounted()
        return Examples(images, labels)

    def _miscounted(self) -> ValueError:
        return ValueError(
            f"tfrecord_images: {self._folder} holds other numbers of records than its manifest says; prepare it again "
            "with python -m robgan_tf.prepare."
        )


def _elements(dataset: tf.data.Dataset, name: str) -> Iterator:
    """The elements of a dataset, as NumPy arrays; raises ValueError where the records of `name` can't be read."""
    try:
        yield from dataset.with_options(pipelines.options()).as_numpy_iterator()
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        # Without the names of nodes and devices in front, and without the whole of a record that makes no sense.
        problem = first_line(re.sub(r"(?s:^.*assertion failed: )|\{\{.*?\}\} ?", "", error.message))[:200]
        raise ValueError(f"tfrecord_images: can't read {name}: {problem}") from error
