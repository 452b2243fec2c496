"""Penalties on the discriminator, which co-training adds to its loss: `CoTraining.penalty = @r1()`.

A loss sees the discriminator's logits alone; a penalty gets the discriminator itself, and may look at it anywhere. Your
own is a subclass of `Penalty` that gin knows, in a module of yours.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.values import check, number

# Of squared norms: the root has no derivative at 0.
_TINY = 1e-24
_NO_PENALTY = "for no penalty set CoTraining.penalty = None"


@dataclasses.dataclass(frozen=True)
class DiscriminatorBatch:
    """What an update of the discriminator is computed from, or a part of it.

    Attributes:
        real: real images as the discriminator sees them, attacked and augmented where there are attacker and
            augmentation, float32 [b, H, W, C].
        fake: as many generated images, augmented likewise.
        labels: classes of the real images, int32 [b].
        fake_labels: classes that the generator was asked for, int32 [b].
        uniform: a random number from [0, 1) for each pair of images, float32 [b]: the same however many replicas share
            the batch, and however many parts it is computed in.
    """

    real: tf.Tensor
    fake: tf.Tensor
    labels: tf.Tensor
    fake_labels: tf.Tensor
    uniform: tf.Tensor


class Penalty:
    """Base of the penalties."""

    def check(self, discriminator: keras.Model):
        """Raises a ValueError where the discriminator does not go with the penalty."""

    def __call__(self, discriminator: keras.Model, batch: DiscriminatorBatch, source_logits: Callable) -> tf.Tensor:
        """Returns the penalty of each pair of images, weighted, float32 [b]: the caller takes its mean.

        It must assign nothing: to call the discriminator with `training=False` leaves its state alone.

        Args:
            discriminator: maps images and `training` to a `Verdict`.
            batch: what the update is computed from.
            source_logits: maps a verdict and labels to the logits [b] of "real", see `CoTrainingLosses`.
        """
        raise NotImplementedError


class GradientPenalty(Penalty):
    """Base of the penalties on the gradient of the logit of "real" with respect to the image."""

    def check(self, discriminator):
        """Raises a ValueError for a network that computes its blocks anew, which can be differentiated once alone."""
        if any(getattr(module, "recompute", False) for module in discriminator.submodules):
            raise ValueError(
                "CoTraining.penalty needs second derivatives, which recomputed blocks do not have: set "
                "Discriminator.recompute = False, and CoTraining.accumulation above 1 to save memory."
            )

    def squared_norms(self, discriminator, images, labels, source_logits: Callable) -> tf.Tensor:
        """Returns ||d s(x) / dx||_2^2 of the logit s of each image, [b], itself differentiable by the weights."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            # The derivative of a sum is that of each image: the images of a batch have no part in each other's logits.
            logits = source_logits(discriminator(images, training=False), labels)
        return tf.reduce_sum(tf.square(tape.gradient(logits, images)), axis=[1, 2, 3])


@gin.configurable("r1")
@dataclasses.dataclass(frozen=True)
class R1(GradientPenalty):
    """(gamma / 2) ||d s(x) / dx||^2 at the real images x (Mescheder et al., ICML 2018, eq. 9).

    Attributes:
        gamma: its weight, for pixels in [-1, 1]; 10 in their experiments.
    """

    gamma: float = 10.0

    def __post_init__(self):
        check("r1.gamma", self.gamma, number(above=0), _NO_PENALTY)

    def __call__(self, discriminator, batch, source_logits):
        """See `Penalty`."""
        return 0.5 * self.gamma * self.squared_norms(discriminator, batch.real, batch.labels, source_logits)


@gin.configurable("wgan_gp")
@dataclasses.dataclass(frozen=True)
class WganGp(GradientPenalty):
    """weight (||d s(x) / dx|| - 1)^2 at x = u real + (1 - u) fake, u uniform (Gulrajani et al., NeurIPS 2017, eq. 3).

    Made for the loss `@wasserstein` (and `@hinge_generator` for the generator). Where the logit depends on the class,
    that of the real image is taken.

    Attributes:
        weight: lambda, for pixels in [-1, 1]; 10 in their experiments.
    """

    weight: float = 10.0

    def __post_init__(self):
        check("wgan_gp.weight", self.weight, number(above=0), _NO_PENALTY)

    def __call__(self, discriminator, batch, source_logits):
        """See `Penalty`."""
        share = batch.uniform[:, tf.newaxis, tf.newaxis, tf.newaxis]
        between = share * batch.real + (1.0 - share) * batch.fake
        squares = self.squared_norms(discriminator, between, batch.labels, source_logits)
        return self.weight * tf.square(tf.sqrt(tf.maximum(squares, _TINY)) - 1.0)
