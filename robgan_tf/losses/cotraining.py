"""The losses of the three players in co-training, one pure function per equation of the paper (eq. 8 and 9).

S is the logit of "real" (`Verdict.source`, [B]), C the class logits (`Verdict.classes`, [B, K]). Log-likelihoods that
the paper maximises are cross-entropies to be minimised here.
"""

from __future__ import annotations

import dataclasses
import inspect
from functools import partial
from typing import Callable

import gin

from robgan_tf.losses.terms import class_loss, logistic, non_saturating, wasserstein
from robgan_tf.values import checked, number

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

    Raises:
        ValueError: for `@wasserstein` with other weights of real than of generated images.
    """
    check_balance("split", weights, source_loss)
    return _with_classes(split_discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss)


@gin.configurable
def ac_gan(
    weights: Weights = gin.REQUIRED,
    source_loss: Callable = logistic,
    generator_source_loss: Callable = non_saturating,
    attack_class_loss: Callable = class_loss,
) -> CoTrainingLosses:
    """The AC-GAN loss, equation 8, with `@as_paper()` or `@ac_gan.as_code()` weights. Arguments as of `split`."""
    check_balance("ac_gan", weights, source_loss)
    return _with_classes(ac_gan_discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss)


def check_balance(name: str, weights: Weights, source_loss: Callable):
    """Raises a ValueError where the loss `name` falls without end as one constant is added to all logits."""
    if inspect.unwrap(source_loss) is wasserstein and weights.real != weights.fake:  # gin wraps its references
        raise ValueError(
            f"{name}.source_loss = @wasserstein needs the same weight for real as for generated images, or the loss "
            f"falls without end as all logits move together; got real = {weights.real:g} and fake = {weights.fake:g}: "
            f"set {name}.weights = @as_paper()."
        )


def _with_classes(discriminator_loss, weights, source_loss, generator_source_loss, attack_class_loss):
    return CoTrainingLosses(
        weights,
        partial(discriminator_loss, weights=weights, source_loss=source_loss),
        partial(generator_loss, weights=weights, source_loss=generator_source_loss),
        partial(attack_objective, weights=weights, source_loss=source_loss, attack_class_loss=attack_class_loss),
    )
