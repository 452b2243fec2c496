"""What tf.data's tuner costs: how long iterators wait for it as they end, and whether it makes batches faster."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf
from absl import flags

from measures.timing import Series
from robgan_tf.data import preprocessing
from robgan_tf.data.batches import evaluation_batches, training_batches
from robgan_tf.data.datasets import Examples

FLAGS = flags.FLAGS

# Seconds that an iterator lives, beside work that keeps the processors busy, before it ends.
_LIFE = 2.0
_NAMES = {True: "with the tuner", False: "without it"}
# Batches that are drawn to tell how fast they come, behind as many as fill the pipeline.
_DRAWN, _FILLING = 100, 20


def measure_iterator_end() -> list[Series]:
    """Seconds that the iterator of an evaluation takes to end, and seconds of a training batch, tuned and untuned."""
    random = np.random.default_rng(0)
    examples = Examples(
        random.integers(0, 256, [6400, 32, 32, 3], np.uint8), random.integers(0, 10, [6400]).astype(np.int32)
    )
    augment = (preprocessing.pad_and_crop, preprocessing.random_flip)
    evaluation = evaluation_batches(examples, FLAGS.batch).repeat()
    training = training_batches(examples, FLAGS.batch, steps=10**9, seed=0, augment=augment)
    ends, batches = {False: [], True: []}, {False: [], True: []}
    for number in range(FLAGS.repetitions):
        for tuned in (True, False) if number % 2 else (False, True):
            options = tf.data.Options()
            options.autotune.enabled = tuned
            ends[tuned].append(_end(evaluation.with_options(options)))
            batches[tuned].append(_batch(training.with_options(options)))
    waited = sum(seconds > 0.1 for seconds in ends[True])
    share = sum(ends[True]) / (_LIFE * FLAGS.repetitions)
    print(
        f"with the tuner {waited} of {FLAGS.repetitions} took over 0.1 s to end, all {share:.0%} of what they had lived"
    )
    return [
        *(Series(f"end of an iterator, {name}", ends[tuned]) for tuned, name in _NAMES.items()),
        *(Series(f"a batch, {name}", batches[tuned]) for tuned, name in _NAMES.items()),
        Series("a batch, without it / with it", np.array(batches[False]) / np.array(batches[True]), ""),
    ]


def _end(dataset: tf.data.Dataset) -> float:
    iterator, began = iter(dataset), time.perf_counter()
    matrix = tf.random.normal([1000, 1000])
    while time.perf_counter() - began < _LIFE:
        next(iterator)
        tf.linalg.matmul(matrix, matrix)
    began = time.perf_counter()
    del iterator
    return time.perf_counter() - began


def _batch(dataset: tf.data.Dataset) -> float:
    iterator = iter(dataset)
    for _ in range(_FILLING):
        next(iterator)
    began = time.perf_counter()
    for _ in range(_DRAWN):
        next(iterator)
    return (time.perf_counter() - began) / _DRAWN
