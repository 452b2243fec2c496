"""Batch normalisation over the global batch, and its class-conditional form.

Not Keras's: its synchronised form takes the variance as E[x^2] - E[x]^2, which rounding can make negative (and the
output NaN) for a channel that varies little around a large mean, and takes about three times as long on a CPU.
"""

from __future__ import annotations

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.values import checked, number, whole

# Of the authors' networks (Chainer's defaults): 2e-5, and 0.9 is the weight of the OLD running average.
EPSILON = 2e-5
MOMENTUM = 0.9


@checked(epsilon=number(above=0))
class BatchNorm(keras.layers.Layer):
    """Batch normalisation (Ioffe & Szegedy, ICML 2015) with statistics over the batches of all replicas.

    The networks see the same statistics on eight devices with 8 images each as on one with 64. Statistics and weights
    are float32 under mixed precision; the output has the policy's compute dtype.

    Args:
        name: name of the layer.
        epsilon: added to the variance.
    """

    def __init__(self, name: str | None = None, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self._output_dtype = keras.mixed_precision.global_policy().compute_dtype
        super().__init__(name=name, dtype="float32", autocast=False)

    def build(self, input_shape):
        """Creates gamma, beta and the running averages, [channels] each, for inputs [B, H, W, channels]."""
        channels = input_shape[-1]
        self._add_affine(channels)
        self.moving_mean = _running_average("moving_mean", tf.zeros([channels]))
        self.moving_variance = _running_average("moving_variance", tf.ones([channels]))
        super().build(input_shape)

    def _add_affine(self, channels: int):
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")

    def call(self, images, training=False):
        """Normalises `images` [B, H, W, C] and applies the affine map; in training it moves the running averages."""
        images, statistics = self.normalize(images, training)
        if training:
            self.observe(statistics)
        return images

    def normalize(self, images, training: bool):
        """Returns the normalised images and the mean and variance [C] that it took; assigns nothing.

        In training these are the statistics of the batch, otherwise the running averages.
        """
        return self._normalize(images, self.gamma, self.beta, training)

    def observe(self, statistics):
        """Moves the running averages towards the mean and variance of a batch, as `normalize` returned them."""
        for average, value in zip((self.moving_mean, self.moving_variance), statistics):
            average.assign(MOMENTUM * average + (1.0 - MOMENTUM) * value)

    def _normalize(self, images, gamma, beta, training: bool):
        images = tf.cast(images, self._output_dtype)
        if training and _replicas() == 1:
            normalized, statistics = _standardize(images, self.epsilon)
            return normalized * tf.cast(gamma, images.dtype) + tf.cast(beta, images.dtype), statistics
        images = tf.cast(images, tf.float32)
        if training:
            mean = _mean_over_replicas(images)
            variance = _mean_over_replicas(tf.math.squared_difference(images, mean))
        else:
            mean, variance = tf.identity(self.moving_mean), tf.identity(self.moving_variance)
        normalized = (images - mean) * (gamma * tf.math.rsqrt(variance + self.epsilon)) + beta
        return tf.cast(normalized, self._output_dtype), (mean, variance)


@checked(num_classes=whole(1))
class ConditionalBatchNorm(BatchNorm):
    """Batch norm with scale gamma (1 at the start) and offset beta (0) for each class (Dumoulin et al., ICLR 2017).

    Args:
        num_classes: number of classes.
        name: name of the layer.
    """

    def __init__(self, num_classes: int, name: str | None = None):
        super().__init__(name=name)
        self.num_classes = num_classes

    def _add_affine(self, channels: int):
        self.gamma = self.add_weight(name="gamma", shape=(self.num_classes, channels), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(self.num_classes, channels), initializer="zeros")

    def call(self, images, labels, training=False):
        """As `BatchNorm`, with the affine map of the classes `labels` [B] (integers)."""
        images, statistics = self.normalize(images, labels, training)
        if training:
            self.observe(statistics)
        return images

    def normalize(self, images, labels, training: bool):
        """As `BatchNorm.normalize`, with the affine map of the classes `labels` [B] (integers)."""
        gamma, beta = (tf.gather(table, labels)[:, tf.newaxis, tf.newaxis, :] for table in (self.gamma, self.beta))
        return self._normalize(images, gamma, beta, training)


def _running_average(name: str, initial: tf.Tensor) -> tf.Variable:
    # All replicas compute the same statistics, so the first one's are taken.
    return tf.Variable(initial, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _standardize(images: tf.Tensor, epsilon: float):
    """Returns images [B, H, W, C] with mean 0 and variance 1 in each channel, and the float32 mean and variance [C].

    One kernel, which knows nothing of other replicas: about half the time of the same in single operations.
    """
    ones = tf.ones([images.shape[-1]])
    normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(images, ones, 0 * ones, epsilon=epsilon)
    # The kernel divides the sum of squares by one less than their number.
    count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
    return normalized, (mean, variance * (count - 1) / count)


def _mean_over_replicas(images: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each channel of images [B, H, W, C] over the equally large batches of all replicas, [C]."""
    mean = tf.reduce_mean(images, axis=[0, 1, 2])
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, mean)
