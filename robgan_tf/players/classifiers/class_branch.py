"""Classifiers: what fine-tuning trains, evaluation attacks and export serves."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers.residual import glorot_uniform


class Classifier(keras.Model):
    """Maps images float32 [B, H, W, C] in [-1, 1] to class logits float32 [B, K].

    Attributes:
        num_classes: number of classes, K.
        image_shape: (H, W, C).
        features_and_logits: a method from images to what the last, linear layer is given, float32 [B, D], and the
            logits, in inference mode; by the features generators are measured. None where there is no such layer.
    """

    features_and_logits: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None

    def power_iteration(self):
        """Moves the state of spectral normalisation before an update of the weights; nothing where there is none."""

    def cached_kernels(self):
        """A context for passes between which the weights stay as they are: see `Discriminator.cached_kernels`."""
        return contextlib.nullcontext()

    def another(self) -> Classifier:
        """Returns another one with the same arguments, made under the current strategy and precision."""
        raise NotImplementedError(f"{type(self).__name__} does not say how another one is made.")

    def inference_copy(self) -> Classifier:
        """Returns one that answers alike in inference, made as `another`: for evaluation and export."""
        copy = self.another()
        copy.set_weights(self.get_weights())
        return copy

    @property
    def class_variables(self) -> list[tf.Variable]:
        """The trainable variables that the class logits depend on."""
        return self.trainable_variables


class PooledClassifier(Classifier):
    """Base of the usual networks: a linear layer on what `feature_maps` gives, averaged over the image.

    Args:
        num_classes: see `Classifier`.
        image_shape: see `Classifier`.
        another: makes another one with the same arguments.
        name: name of the model.
    """

    def __init__(self, num_classes: int, image_shape: Sequence[int], another: Callable[[], Classifier], name: str):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.image_shape = tuple(image_shape)
        self._another = another
        # Float32 under every precision: it is small, and losses and attacks are built on it.
        self.dense = keras.layers.Dense(
            num_classes, kernel_initializer=glorot_uniform(1.0), dtype="float32", name="class_head"
        )

    def feature_maps(self, images, training) -> tf.Tensor:
        """Maps images [B, H, W, C] in [-1, 1] to what is averaged over the image, [B, h, w, D]."""
        raise NotImplementedError

    def call(self, images, training=False) -> tf.Tensor:
        """Returns class logits float32 [B, K] of images float32 [B, H, W, C] in [-1, 1].

        `training`: whether batch norm takes its statistics from this batch (and moves its running averages).
        """
        return self.dense(self._pooled(images, training))

    def features_and_logits(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Classifier`."""
        features = self._pooled(images, training=False)
        return features, self.dense(features)

    def another(self) -> Classifier:
        """See `Classifier.another`."""
        return self._another()

    def _pooled(self, images, training) -> tf.Tensor:
        return tf.reduce_mean(tf.cast(self.feature_maps(images, training), tf.float32), axis=[1, 2])


@gin.configurable
class ClassBranch(Classifier):
    """The discriminator as a classifier: f(x; w) of the paper's equation 10.

    Args:
        discriminator: a `Discriminator`; its weights are shared, not copied.
        name: name of the model.
    """

    def __init__(self, discriminator: Callable, name: str = "class_branch"):
        super().__init__(name=name)
        self.discriminator = discriminator
        self.num_classes = discriminator.num_classes
        self.image_shape = discriminator.image_shape

    def call(self, images, training=False) -> tf.Tensor:
        """Returns the class logits of the discriminator, float32 [B, K]."""
        return self.discriminator(images, training=training).classes

    def features_and_logits(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Classifier`: the pooled features of the discriminator, and its class logits."""
        features = self.discriminator.features(images)
        return features, self.discriminator.class_head(features)

    def power_iteration(self):
        """See `Discriminator.power_iteration`."""
        self.discriminator.power_iteration()

    def cached_kernels(self):
        """See `Discriminator.cached_kernels`."""
        return self.discriminator.cached_kernels()

    def another(self) -> ClassBranch:
        """Returns the class branch of another discriminator."""
        return ClassBranch(self.discriminator.another(), name=self.name)

    def inference_copy(self) -> ClassBranch:
        """Returns one without spectral normalisation, see `Discriminator.inference_copy`."""
        return ClassBranch(self.discriminator.inference_copy(), name=self.name)

    @property
    def class_variables(self) -> list[tf.Variable]:
        """All but those of the real/fake head, which has no part in the classification."""
        others = {id(variable) for variable in self.discriminator.source_head.trainable_variables}
        return [variable for variable in self.trainable_variables if id(variable) not in others]
