"""The losses of SN-GAN with a projection discriminator.

Miyato & Koyama, ICLR 2018, eq. 5: f(x, y) = psi(h) + <embed(y), h>, with h the pooled features. The inner products
with the embeddings of all classes at once are a linear layer without bias: S is psi(h), and C[y] is <embed(y), h>, of
a `Discriminator` with `class_bias=False`. It has one logit for each image and its class, and no loss of classes.
"""

from __future__ import annotations

from functools import partial
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.losses.cotraining import CoTrainingLosses, Weights, check_balance
from robgan_tf.losses.terms import hinge, hinge_generator


def projection_logits(verdict, labels):
    """S(x) + C(x)[y], [B]: the logit of "real, given its class", from a `Verdict` and labels int [B]."""
    return verdict.source + tf.gather(verdict.classes, labels, axis=-1, batch_dims=1)


def projection_discriminator_loss(real, fake, labels, fake_labels, weights: Weights, source_loss: Callable = hinge):
    """The discriminator tells real from generated images, each given its class. Arguments as of the split loss."""
    found = weights.real * source_loss(projection_logits(real, labels), real=True)
    return found + weights.fake * source_loss(projection_logits(fake, fake_labels), real=False)


def projection_generator_loss(fake, fake_labels, weights: Weights, source_loss: Callable = hinge_generator):
    """The generator's images shall pass for real, given their class. Arguments as of `generator_loss`."""
    return weights.generator * source_loss(projection_logits(fake, fake_labels))


def projection_attack_objective(real, labels, weights: Weights, source_loss: Callable = hinge):
    """The discriminator's loss on real images, for an attacker. Arguments as of `attack_objective`."""
    return weights.attack * source_loss(projection_logits(real, labels), real=True)


@gin.configurable
def projection(
    weights: Weights = gin.REQUIRED,
    source_loss: Callable = hinge,
    generator_source_loss: Callable = hinge_generator,
) -> CoTrainingLosses:
    """The loss of SN-GAN with a projection discriminator (Miyato & Koyama, ICLR 2018), with `@as_paper()` weights.

    Args:
        weights: weight of each term; there is none of classes.
        source_loss: the discriminator's, and the attacker's: `@hinge` or `@logistic`.
        generator_source_loss: `@hinge_generator` or `@non_saturating`.

    Raises:
        ValueError: for `@wasserstein` with other weights of real than of generated images.
    """
    check_balance("projection", weights, source_loss)
    return CoTrainingLosses(
        weights,
        partial(projection_discriminator_loss, weights=weights, source_loss=source_loss),
        partial(projection_generator_loss, weights=weights, source_loss=generator_source_loss),
        partial(projection_attack_objective, weights=weights, source_loss=source_loss),
        projection_logits,
    )
