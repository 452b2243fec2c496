"""The losses of the three players, one pure function per equation of the paper.

Each returns the loss of every image, float32 [B], so that the caller can divide the sum by the GLOBAL batch size: under
several replicas a mean would weigh them wrongly. S is the logit of "real" (`Verdict.source`, [B]), C the class logits
(`Verdict.classes`, [B, K]). Log-likelihoods that the paper maximises are cross-entropies to be minimised here.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.values import checked, number

# ---- terms, which configurations bind by reference


@gin.register
def logistic(logits, real: bool):
    """-log P(S = real | x) or -log P(S = fake | x) of each image, from the logits [B] of "real" (eq. 1)."""
    return tf.nn.softplus(-logits if real else logits)


@gin.register
def hinge(logits, real: bool):
    """max(0, 1 - s) of each real image, max(0, 1 + s) of each generated one, from the logits s [B] of "real".

    Lim & Ye 2017; Miyato et al., ICLR 2018, eq. 16. It leaves images alone that are on their side by 1 or more: an
    attack that maximises it gets no gradient from these.
    """
    return tf.nn.relu(1.0 - logits if real else 1.0 + logits)


@gin.register
def wasserstein(logits, real: bool):
    """-s of each real image, s of each generated one, from the logits s [B] (Arjovsky et al., ICML 2017, eq. 2).

    It has no lower bound: it needs a discriminator with a Lipschitz bound, by spectral normalisation or `@wgan_gp()`.
    """
    return -logits if real else logits


@gin.register
def non_saturating(logits):
    """The generator's -log P(S = real | fake) of each image, from the logits [B] of "real" (Goodfellow et al. 2014)."""
    return logistic(logits, real=True)


@gin.register
def hinge_generator(logits):
    """-s of each image, from the logits s [B]: the generator's beside the hinge loss (Miyato et al. 2018, eq. 17)."""
    return -logits


@gin.register
def class_loss(logits, labels):
    """-log P(C = label | x) of each image, from class logits [B, K] and integer labels [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


_TERMS = "real fake real_class fake_class generator generator_class attack attack_class"
_WEIGHTS = dict.fromkeys(_TERMS.split(), number(least=0))


@gin.configurable("as_paper")
@checked("as_paper", **_WEIGHTS)
@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of all terms of the co-training losses: those of the paper, all 1.

    Attributes:
        real: discriminator, source of (adversarial) real images.
        fake: discriminator, source of generated images.
        real_class: discriminator, class of (adversarial) real images.
        fake_class: discriminator, class of generated images: AC-GAN's term, which the split loss does not have.
        generator: generator, source of its images.
        generator_class: generator, class of its images.
        attack: attacker, source of real images.
        attack_class: attacker, class of real images.
    """

    real: float = 1.0
    fake: float = 1.0
    real_class: float = 1.0
    fake_class: float = 1.0
    generator: float = 1.0
    generator_class: float = 1.0
    attack: float = 1.0
    attack_class: float = 1.0


@gin.configurable("as_code", module="ac_gan")
@checked("ac_gan.as_code", **_WEIGHTS)
@dataclasses.dataclass(frozen=True)
class AcGanAsCode(Weights):
    """The weights of the authors' released code with the AC-GAN loss: all 0.5."""

    real: float = 0.5
    fake: float = 0.5
    real_class: float = 0.5
    fake_class: float = 0.5
    generator: float = 0.5
    generator_class: float = 0.5
    attack: float = 0.5
    attack_class: float = 0.5


@gin.configurable("as_code", module="split")
@checked("split.as_code", **_WEIGHTS)
@dataclasses.dataclass(frozen=True)
class SplitAsCode(AcGanAsCode):
    """Those of their code with the split loss: 1 for `fake`, so their ablation of it changes two things at once."""

    fake: float = 1.0


# ---- the players' losses, one function for each equation


def split_discriminator_loss(real, fake, labels, fake_labels, weights: Weights, source_loss: Callable = logistic):
    """Equation 9: the discriminator maximises L_S + L_C1, with C1 on REAL images only.

    Args:
        real: `Verdict` on B real (adversarial) images.
        fake: `Verdict` on B generated images.
        labels: classes of the real images, int [B].
        fake_labels: classes that the generator was asked for, int [B]; not used, which is the point of the split.
        weights: weight of each term.
        source_loss: `logistic` (L_S of the paper) or `hinge`.
    """
    del fake_labels
    return (
        weights.real * source_loss(real.source, real=True)
        + weights.fake * source_loss(fake.source, real=False)
        + weights.real_class * class_loss(real.classes, labels)
    )


def ac_gan_discriminator_loss(real, fake, labels, fake_labels, weights: Weights, source_loss: Callable = logistic):
    """Equation 8: the discriminator maximises L_S + L_C(real) + L_C(fake). Arguments as of the split loss."""
    split = split_discriminator_loss(real, fake, labels, fake_labels, weights, source_loss)
    return split + weights.fake_class * class_loss(fake.classes, fake_labels)


def generator_loss(fake, fake_labels, weights: Weights, source_loss: Callable = non_saturating):
    """Equations 8 and 9: the generator maximises L_C(fake) - L_S.

    Args:
        fake: `Verdict` on B generated images.
        fake_labels: classes that the generator was asked for, int [B].
        weights: weight of each term.
        source_loss: `non_saturating`, BCE(S(fake), 1), or `hinge_generator`.
    """
    source = weights.generator * source_loss(fake.source)
    return source + weights.generator_class * class_loss(fake.classes, fake_labels)


def attack_objective(
    real, labels, weights: Weights, source_loss: Callable = logistic, attack_class_loss: Callable = class_loss
):
    """What the attacker maximises in co-training: the discriminator's loss on real images (equation 2).

    Args:
        real: `Verdict` on B attacked real images.
        labels: their classes, int [B].
        weights: weight of each term.
        source_loss: the discriminator's, `logistic` or `hinge`.
        attack_class_loss: maps class logits and labels to the class term.
    """
    source = weights.attack * source_loss(real.source, real=True)
    return source + weights.attack_class * attack_class_loss(real.classes, labels)


def fine_tuning_loss(per_image, real: int, fake_weight: float):
    """Equation 10 (and 6): the sum over real images, plus lambda times that over generated ones (a scalar).

    A sum and not a value per image, since real and generated images may differ in number; the caller divides by the
    global number of real images.

    Args:
        per_image: loss of each image, [real + generated].
        real: number of real images, which come first.
        fake_weight: lambda, 0.3 to 0.8 in the authors' code.
    """
    return tf.reduce_sum(per_image[:real]) + fake_weight * tf.reduce_sum(per_image[real:])


# ---- the projection discriminator
#
# Miyato & Koyama, ICLR 2018, eq. 5: f(x, y) = psi(h) + <embed(y), h>, with h the pooled features. The inner products
# with the embeddings of all classes at once are a linear layer without bias: S is psi(h), and C[y] is <embed(y), h>, of
# a `Discriminator` with `class_bias=False`. It has one logit for each image and its class, and no loss of classes.


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


# ---- presets


@dataclasses.dataclass(frozen=True)
class CoTrainingLosses:
    """The losses of the three players as co-training calls them.

    Attributes:
        weights: weight of each term.
        discriminator: of (real, fake, labels, fake_labels), the loss of the discriminator, [B].
        generator: of (fake, fake_labels), the loss of the generator, [B].
        attack: of (real, labels), the objective of the attacker, [B].
        source_logits: of (verdict, labels), the logits [B] by which real and generated images are told apart.
    """

    weights: Weights
    discriminator: Callable
    generator: Callable
    attack: Callable
    source_logits: Callable = lambda verdict, labels: verdict.source


@gin.configurable
def split(
    weights: Weights = gin.REQUIRED,
    source_loss: Callable = logistic,
    generator_source_loss: Callable = non_saturating,
    attack_class_loss: Callable = class_loss,
) -> CoTrainingLosses:
    """The paper's own loss, equation 9, with `@as_paper()` or `@split.as_code()` weights.

    Args:
        weights: weight of each term.
        source_loss: the discriminator's, and the attacker's: `@logistic`, `@hinge` or `@wasserstein`.
        generator_source_loss: `@non_saturating` or `@hinge_generator`.
        attack_class_loss: class term of what the attacker maximises: `@class_loss`, `@margin_loss` or another.
    """
    return _with_classes(split_discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss)


@gin.configurable
def ac_gan(
    weights: Weights = gin.REQUIRED,
    source_loss: Callable = logistic,
    generator_source_loss: Callable = non_saturating,
    attack_class_loss: Callable = class_loss,
) -> CoTrainingLosses:
    """The AC-GAN loss, equation 8, with `@as_paper()` or `@ac_gan.as_code()` weights. Arguments as of `split`."""
    return _with_classes(ac_gan_discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss)


def _with_classes(discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss):
    return CoTrainingLosses(
        weights,
        partial(discriminator_loss, weights=weights, source_loss=source_loss),
        partial(generator_loss, weights=weights, source_loss=generator_source_loss),
        partial(attack_objective, weights=weights, source_loss=source_loss, attack_class_loss=attack_class_loss),
    )


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
    """
    return CoTrainingLosses(
        weights,
        partial(projection_discriminator_loss, weights=weights, source_loss=source_loss),
        partial(projection_generator_loss, weights=weights, source_loss=generator_source_loss),
        partial(projection_attack_objective, weights=weights, source_loss=source_loss),
        projection_logits,
    )
