"""Batch-norm statistics of a generator whose weights are averages ("standing statistics")."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import MOMENTUM
from robgan_tf.training.randomness import generator_inputs


class StandingStatistics:
    """Gives a generator batch-norm statistics of its own, a pure function of its weights.

    Averaged weights make other feature maps than those that the running averages were taken from. So the running
    averages start anew, from 0, and see some batches of the generator; the share of that 0 is divided out (as Adam does
    with its moments).

    Args:
        generator: the generator.
    """

    def __init__(self, generator: keras.Model):
        self.generator = generator
        self._observe = tf.function(self._observe, autograph=False)

    def take(self, seeds: Sequence[tf.Tensor], batch_size: int):
        """Takes the statistics; to be called before the generator is sampled from, outside of a training step.

        Args:
            seeds: of noise and labels, int32 [2] for each batch.
            batch_size: images in a batch, over all replicas.
        """
        layers = self.generator.batch_norm_layers
        for layer in layers:
            layer.moving_mean.assign(tf.zeros_like(layer.moving_mean))
            layer.moving_variance.assign(tf.zeros_like(layer.moving_variance))
        for seed in seeds:
            self._observe(seed, max(batch_size // tf.distribute.get_strategy().num_replicas_in_sync, 1))
        seen = 1.0 - MOMENTUM ** len(seeds)
        for layer in layers:
            layer.moving_mean.assign(layer.moving_mean / seen)
            layer.moving_variance.assign(layer.moving_variance / seen)

    def _observe(self, seed, replica_batch_size: int):
        generator = self.generator

        def observe():
            inputs = generator_inputs(seed, replica_batch_size, generator.latent_dim, generator.num_classes)
            generator(inputs, training=True)

        tf.distribute.get_strategy().run(observe)
