"""Classifiers: what fine-tuning trains, evaluation attacks and export serves."""

from __future__ import annotations

import contextlib
from typing import Callable

import gin
import tensorflow as tf
from tensorflow import keras


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

    def kernels_held(self):
        """A context for passes between which the weights stay as they are: see `Discriminator.kernels_held`."""
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

    def kernels_held(self):
        """See `Discriminator.kernels_held`."""
        return self.discriminator.kernels_held()

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
