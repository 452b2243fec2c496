"""Batches for training and evaluation.

A training batch is a function of (seed, step) alone, whatever holds the images. There is no iterator state, so a run
that was stopped continues at any step with the very batches it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from robgan_tf.data import order, pipelines, preprocessing
from robgan_tf.data.datasets import Examples, TrainingSplit

# Most bytes of float32 images that are augmented as one.
PIECE_BYTES = 1 << 23


def training_batches(
    split: TrainingSplit,
    batch_size: int,
    *,
    steps: int,
    first_step: int = 0,
    seed: int,
    augment: Sequence[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = (),
    noise: float = 0.0,
    workers: int = 1,
    worker: int = 0,
) -> tf.data.Dataset:
    """Batches for the steps first_step .. steps - 1, each a function of (seed, step) alone.

    Resuming is asking for a later first_step. Each pass over the data has a new order and visits every example exactly
    once; a batch may hold the end of one pass and the beginning of the next, so nothing is dropped and every batch is
    full, even when it is larger than the split.

    Args:
        split: what to draw from.
        batch_size: B, the global batch of all replicas and workers.
        steps: the step at which to stop, counted from the beginning of the run, not from first_step.
        first_step: the first step to yield.
        seed: of the order, the augmentations and the noise.
        augment: functions (images [b, H, W, C] on 0..255, seed [3]) -> images of the same shape and scale, applied in
            this order; see `preprocessing`.
        noise: width of the uniform noise added at the end, on the scale of [-1, 1]; see `preprocessing.dequantise`.
        workers: how many processes share each batch. Whatever their number, the batches put together are the same.
        worker: which of them this is, from 0. It gets the `worker`-th part of the rows of every batch, and only these
            are decoded and augmented.

    Returns:
        A dataset of (images float32 [b, H, W, C] in [-1, 1], labels int32 [b]), with static shapes; b = B / workers.
        With several workers it is not to be divided again: give it to `distribute_datasets_from_function`.

    Raises:
        ValueError: if there are no examples, or a number is out of its range.
    """
    if not len(split):
        raise ValueError("training_batches: there are no examples to draw from.")
    if batch_size < 1:
        raise ValueError(f"training_batches: batch_size must be 1 or more, got {batch_size}.")
    if not 0 <= first_step <= steps:
        raise ValueError(f"training_batches: needs 0 <= first_step <= steps, got {first_step} and {steps}.")
    if noise < 0:
        raise ValueError(f"training_batches: noise must be 0 or more, got {noise}.")
    if not 0 <= worker < workers:
        raise ValueError(f"training_batches: needs 0 <= worker < workers, got {worker} and {workers}.")
    if batch_size % workers:
        raise ValueError(f"training_batches: batch_size must be a multiple of the {workers} workers, got {batch_size}.")
    share = batch_size // workers
    rows = range(worker * share, (worker + 1) * share)
    # In pieces: several are augmented at a time, and what lies between two operations stays in the processor's caches.
    most = max(PIECE_BYTES // (4 * math.prod(split.image_shape)), 1)
    piece = max(size for size in range(1, min(most, share) + 1) if share % size == 0)
    pieces = share // piece

    @tf.autograph.experimental.do_not_convert
    def prepare(number, images_and_labels):
        images, labels = images_and_labels
        step, first_row = number // pieces, rows.start + number % pieces * piece

        def seed_of(use):
            return preprocessing.row_seed(order.fold_in(order.stream(seed, use), step), first_row)

        for position, function in enumerate(augment):
            images = function(images, seed_of(order.AUGMENT + position))
        images = preprocessing.dequantise(preprocessing.to_pixel_range(images), seed_of(order.NOISE), noise)
        return tf.ensure_shape(images, [piece, *split.image_shape]), tf.ensure_shape(labels, [piece])

    raw = split.raw_batches(batch_size, first_step=first_step, steps=steps, seed=seed, rows=rows)
    numbers = tf.data.Dataset.range(first_step * pieces, steps * pieces)
    dataset = tf.data.Dataset.zip((numbers, raw if pieces == 1 else raw.rebatch(piece)))
    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if pieces > 1:
        dataset = dataset.rebatch(share, drop_remainder=True)
    # Stops a run whose data became shorter meanwhile; it would go on with other batches than (seed, step) stands for.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps - first_step))
    # Two batches ahead, and not as many as tf.data finds memory for: it would be several GiB of large images.
    return dataset.with_options(_batch_options(workers)).prefetch(2)


def check_augmentations(
    augment: Sequence[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]],
    image_shape: Sequence[int],
    setting: str = "Experiment.augment",
):
    """Tries augmentations on a black image, so that what they refuse is refused before a training begins.

    Raises:
        ValueError: for what they raise themselves, and where an image has another shape afterwards.
    """
    images = tf.zeros([1, *image_shape], tf.uint8)
    for function in augment:
        images = function(images, preprocessing.row_seed(tf.zeros([2], tf.int64), tf.constant(0, tf.int64)))
    if images.shape[1:] != tuple(image_shape):
        raise ValueError(
            f"{setting} makes {tuple(images.shape[1:])} of images of {tuple(image_shape)}; it must keep the shape."
        )


def evaluation_batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Every example exactly once, in stored order, without augmentation or noise.

    The last batch is filled up with copies of the first example, so that shapes are static and no replica is empty;
    the mask tells which rows count.

    Args:
        examples: what to evaluate on.
        batch_size: B, the global batch of all replicas.

    Returns:
        A dataset of (images float32 [B, H, W, C] in [-1, 1], labels int32 [B], mask float32 [B]: 1 for an example, 0
        for padding), with static shapes.

    Raises:
        ValueError: if there are no examples, or batch_size is not positive.
    """
    count = len(examples)
    if not count:
        raise ValueError("evaluation_batches: there are no examples to evaluate on.")
    if batch_size < 1:
        raise ValueError(f"evaluation_batches: batch_size must be 1 or more, got {batch_size}.")
    shape = (batch_size, *examples.images.shape[1:])

    @tf.autograph.experimental.do_not_convert
    def batch(number):
        positions = number * batch_size + tf.range(batch_size, dtype=tf.int64)
        real = positions < count
        chosen = tf.where(real, positions, tf.zeros_like(positions))
        images, labels = examples.gather(chosen)
        return tf.ensure_shape(preprocessing.to_pixel_range(images), shape), labels, tf.cast(real, tf.float32)

    dataset = tf.data.Dataset.range(-(-count // batch_size))
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_batch_options()).prefetch(2)


def _batch_options(workers: int = 1) -> tf.data.Options:
    options = pipelines.options()
    # Several workers that were not told of one another: each makes all batches and keeps its share of every one, so a
    # run on two workers sees the data of a run on one. OFF would give each worker the same images; FILE would give it
    # the same part of the images in every pass. Where a worker makes its share alone, there is nothing left to divide.
    policies = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policies.DATA if workers == 1 else policies.OFF
    return options
