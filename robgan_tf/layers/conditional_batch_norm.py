"""Batch normalisation whose scale and offset depend on the class."""

from __future__ import annotations

import tensorflow as tf
from tensorflow import keras

# Of the authors' networks (Chainer's defaults): 2e-5, and 0.9 is the weight of the OLD running average.
EPSILON = 2e-5
MOMENTUM = 0.9


def batch_norm(affine: bool = True, name: str | None = None) -> keras.layers.BatchNormalization:
    """Returns the batch normalisation that the networks of the paper use.

    Statistics are taken over the global batch of all replicas: the generator sees the same statistics on eight devices
    with 8 images each as on one with 64.

    Args:
        affine: whether it has a scale and an offset of its own.
        name: name of the layer.
    """
    return keras.layers.BatchNormalization(
        epsilon=EPSILON, momentum=MOMENTUM, center=affine, scale=affine, synchronized=True, name=name
    )


class ConditionalBatchNorm(keras.layers.Layer):
    """Batch norm with scale gamma (1 at the start) and offset beta (0) for each class (Dumoulin et al., ICLR 2017).

    Args:
        num_classes: number of classes.
        name: name of the layer.
    """

    def __init__(self, num_classes: int, name: str | None = None):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.normalization = batch_norm(affine=False)

    def build(self, input_shape):
        """Creates gamma and beta [num_classes, channels] for inputs [B, H, W, channels]."""
        shape = (self.num_classes, input_shape[-1])
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.normalization.build(input_shape)
        super().build(input_shape)

    def call(self, images, labels, training=False):
        """Normalises `images` [B, H, W, C] and applies the affine map of the classes `labels` [B] (integers).

        In training the statistics are those of the batch, and the running averages move; else they are the running
        averages.
        """
        normalized = self.normalization(images, training=training)
        gamma = tf.gather(self.gamma, labels)[:, tf.newaxis, tf.newaxis, :]
        beta = tf.gather(self.beta, labels)[:, tf.newaxis, tf.newaxis, :]
        return normalized * gamma + beta
