"""Batches for training and evaluation, made of examples in memory.

A training batch is a function of (seed, step) alone. There is no shuffle buffer and no iterator state, so a run that
was stopped continues at any step with the very batches it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.datasets import Examples

# Streams of random numbers drawn from one seed.
_SHUFFLE, _AUGMENT, _NOISE = 0, 1, 2


def training_batches(
    examples: Examples,
    batch_size: int,
    *,
    steps: int,
    first_step: int = 0,
    seed: int,
    augment: Sequence[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = (),
    noise: float = 0.0,
) -> tf.data.Dataset:
    """Batches for the steps first_step .. steps - 1, each a function of (seed, step) alone.

    Resuming is asking for a later first_step, and costs nothing. Each pass over the data is a new permutation and
    visits every example exactly once; a batch may hold the end of one pass and the beginning of the next, so nothing
    is dropped and every batch is full, even when it is larger than the split.

    Args:
        examples: what to draw from; stays in memory once, however many streams are drawn.
        batch_size: B, the global batch of all replicas.
        steps: the step at which to stop, counted from the beginning of the run, not from first_step.
        first_step: the first step to yield.
        seed: of the order, the augmentations and the noise.
        augment: functions (images [B, H, W, C] on 0..255, seed [2]) -> images of the same shape and scale, applied in
            this order; see `preprocessing`.
        noise: width of the uniform noise added at the end, on the scale of [-1, 1]; see `preprocessing.dequantise`.

    Returns:
        A dataset of (images float32 [B, H, W, C] in [-1, 1], labels int32 [B]), with static shapes.

    Raises:
        ValueError: if there are no examples, or a number is out of its range.
    """
    if not len(examples):
        raise ValueError("training_batches: there are no examples to draw from.")
    if batch_size < 1:
        raise ValueError(f"training_batches: batch_size must be 1 or more, got {batch_size}.")
    if not 0 <= first_step <= steps:
        raise ValueError(f"training_batches: needs 0 <= first_step <= steps, got {first_step} and {steps}.")
    if noise < 0:
        raise ValueError(f"training_batches: noise must be 0 or more, got {noise}.")
    images, labels = examples.tensors
    shape = (batch_size, *examples.images.shape[1:])

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        chosen = _shuffled_indices(step, batch_size, len(examples), seed)
        batch_images, batch_labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        augment_seed = _fold_in(_stream(seed, _AUGMENT), step)
        for position, function in enumerate(augment):
            batch_images = function(batch_images, _fold_in(augment_seed, position))
        batch_images = preprocessing.to_pixel_range(batch_images)
        batch_images = preprocessing.dequantise(batch_images, _fold_in(_stream(seed, _NOISE), step), noise)
        return tf.ensure_shape(batch_images, shape), tf.ensure_shape(batch_labels, shape[:1])

    dataset = tf.data.Dataset.range(first_step, steps)
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_batch_options()).prefetch(tf.data.AUTOTUNE)


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
    images, labels = examples.tensors
    shape = (batch_size, *examples.images.shape[1:])

    @tf.autograph.experimental.do_not_convert
    def batch(number):
        positions = number * batch_size + tf.range(batch_size, dtype=tf.int64)
        real = positions < count
        chosen = tf.where(real, positions, tf.zeros_like(positions))
        batch_images = preprocessing.to_pixel_range(tf.gather(images, chosen))
        return tf.ensure_shape(batch_images, shape), tf.gather(labels, chosen), tf.cast(real, tf.float32)

    dataset = tf.data.Dataset.range(-(-count // batch_size))
    dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.with_options(_batch_options()).prefetch(tf.data.AUTOTUNE)


def _shuffled_indices(step: tf.Tensor, batch_size: int, count: int, seed: int) -> tf.Tensor:
    """int64 [batch_size]: which examples make up this step's batch."""
    first = step * batch_size
    positions = first + tf.range(batch_size, dtype=tf.int64)
    first_pass = first // count
    passes_in_batch = (batch_size - 1) // count + 2  # most passes over the data that one batch can touch
    # tf.random.experimental.index_shuffle would be the place to go, but in TensorFlow 2.15 it pads the wrong axis of a
    # batch of seeds, and its 4 rounds on raw seeds hardly shuffle: seeds (0, 0) and (0, 1) gave permutations of 50,000
    # that correlate by 0.72, and left 1,287 sorted by class nearly sorted. With hashed keys and 16 rounds neither
    # correlation nor class mix can be told from a random permutation's.
    keys = tf.stack(
        [
            tf.random.stateless_uniform([3], _fold_in(_stream(seed, _SHUFFLE), first_pass + i), None, None, tf.int32)
            for i in range(passes_in_batch)
        ]
    )
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % count,
        seed=tf.gather(keys, positions // count - first_pass),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=16,
    )


def _stream(seed: int, stream: int) -> tf.Tensor:
    return tf.constant([seed, stream], tf.int64)


def _fold_in(seed: tf.Tensor, number) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))


def _batch_options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Several workers: each makes all batches and keeps its share of every one, so a run on two workers sees the data of
    # a run on one. OFF would give each worker the same images; FILE has no files to divide.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
