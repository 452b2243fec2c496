"""Random numbers of a training step, a pure function of (seed, step): nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

# Uses of `uniform_numbers`.
PENALTY, AUGMENTED_REAL, AUGMENTED_FAKE = 0x9E4A, 0xD1FA, 0xD1FB


def step_seeds(seed: int, step, count: int) -> list[tf.Tensor]:
    """Returns `count` independent seeds, int32 [2] each, for the training step `step`."""
    root = tf.random.experimental.stateless_fold_in(tf.constant([seed, 0x5EED], tf.int32), step)
    return tf.unstack(tf.random.experimental.stateless_split(root, count))


def replica_seed(seed) -> tf.Tensor:
    """Returns a seed of this replica's own: same-seed stateless operations give the same numbers on every replica."""
    context = tf.distribute.get_replica_context()
    return tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)


def shares_of_replicas(draw: Callable[[int], Sequence[tf.Tensor]], batch: int) -> list[tf.Tensor]:
    """Returns this replica's `batch` rows of what `draw` gives for the global batch.

    So any number of replicas sees the same global batch.

    Args:
        draw: function of the number of rows of the global batch; returns tensors with so many rows, the same on all
            replicas.
        batch: number of rows for each replica.
    """
    context = tf.distribute.get_replica_context()
    begin = batch * tf.cast(context.replica_id_in_sync_group, tf.int32)
    tensors = draw(batch * context.num_replicas_in_sync)
    return [tf.slice(tensor, [begin, *[0] * (len(tensor.shape) - 1)], [batch, *tensor.shape[1:]]) for tensor in tensors]


def generator_inputs(
    seed, batch: int, latent_dim: int, num_classes: int, balanced: bool = False, truncation: float | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns z ~ N(0, I), float32 [batch, latent_dim], and uniform labels, int32 [batch], for this replica.

    Args:
        seed: int32 [2], the same on all replicas.
        batch: number of rows for each replica.
        latent_dim: entries of z.
        num_classes: K.
        balanced: whether the global batch of B rows has each class floor(B / K) or ceil(B / K) times.
        truncation: threshold within (0, 4] that no entry of z exceeds in size, None for none: as if larger ones were
            drawn anew (Brock et al., ICLR 2019, section 3.1).
    """

    def draw(total):
        noise_seed, label_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        if truncation is None:
            noise = tf.random.stateless_normal([total, latent_dim], noise_seed)
        else:
            noise = _truncated_normal(noise_seed, [total, latent_dim], truncation)
        if balanced:
            return noise, _balanced_labels(label_seed, total, num_classes)
        return noise, tf.random.stateless_uniform([total], label_seed, maxval=num_classes, dtype=tf.int32)

    return tuple(shares_of_replicas(draw, batch))


def _truncated_normal(seed, shape, threshold: float) -> tf.Tensor:
    # By the inverse of the distribution function: TensorFlow's own has no threshold but 2, or no kernel for GPUs.
    uniform = tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    noise = math.sqrt(2) * tf.math.erfinv(uniform * math.erf(threshold / math.sqrt(2)))
    return tf.clip_by_value(noise, -threshold, threshold)  # rounding


def _balanced_labels(seed, total: int, num_classes: int) -> tf.Tensor:
    def permutation(seed, count):
        return tf.argsort(tf.random.stateless_uniform([count], seed), stable=True)

    class_seed, row_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    # Which classes have one more is random, too.
    return tf.gather(permutation(class_seed, num_classes), permutation(row_seed, total) % num_classes)


def mixing_seeds(seed, count: int) -> list[tf.Tensor]:
    """Returns seeds, int32 [2] each, for the mixing of `count` kinds of images, independent of `seed`'s others."""
    return [tf.random.experimental.stateless_fold_in(seed, 0x31C5 + kind) for kind in range(count)]


def uniform_numbers(seed, use: int, batch: int, *inner: int) -> tf.Tensor:
    """Returns uniform random numbers from [0, 1), float32 [batch, *inner], for this replica.

    Args:
        seed: the seed of an update; the numbers are independent of its noise and labels.
        use: one of the uses above, each of which has numbers of its own.
        batch: number of rows for each replica.
        *inner: shape of what each row takes.
    """
    seed = tf.random.experimental.stateless_fold_in(seed, use)
    return shares_of_replicas(lambda total: [tf.random.stateless_uniform([total, *inner], seed)], batch)[0]
