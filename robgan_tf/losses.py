"""The losses of the three players, one pure function per equation of the paper.

Each returns the loss of every image, float32 [B], so that the caller can divide the sum by the GLOBAL batch size: under
several replicas a mean would weigh them wrongly. S is the logit of "real" (`Verdict.source`, [B]), C the class logits
(`Verdict.classes`, [B, K]). Log-likelihoods that the paper maximises are cross-entropies to be minimised here.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import gin
import tensorflow as tf


def source_loss(logits, real: bool):
    """-log P(S = real | x) or -log P(S = fake | x) of each image, from the logits [B] of "real"."""
    return tf.nn.softplus(-logits if real else logits)


@gin.register
def class_loss(logits, labels):
    """-log P(C = label | x) of each image, from class logits [B, K] and integer labels [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


# ---- what attacks of the evaluation maximise beside the class loss
#
# All from class logits z [B, K] and classes y, t int [B]; the loss of each image, [B]. In contrast to the cross-entropy
# they have a gradient however sure a network is, and z_(1) >= z_(2) >= ... are the logits in falling order.


@gin.register
def margin_loss(logits, labels):
    """max_(k != y) z_k - z_y, positive where the answer is wrong (Carlini & Wagner 2017, f6)."""
    return tf.reduce_max(_without(logits, labels), axis=-1) - _logit_of(logits, labels)


@gin.register
def targeted_margin_loss(logits, labels, targets):
    """z_t - z_y, positive where the class t is preferred to the right one."""
    return _logit_of(logits, targets) - _logit_of(logits, labels)


@gin.register
def dlr_loss(logits, labels):
    """The margin over z_(1) - z_(3), which does not change with the scale of the logits (Croce & Hein 2020, eq. 6).

    Raises:
        ValueError: for fewer than 3 classes.
    """
    _need_classes(logits, 3, "dlr_loss", "margin_loss")
    first, _, third = tf.unstack(tf.math.top_k(logits, 3).values, axis=-1)
    return tf.math.divide_no_nan(margin_loss(logits, labels), first - third)


@gin.register
def targeted_dlr_loss(logits, labels, targets):
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, eq. 7).

    Raises:
        ValueError: for fewer than 4 classes.
    """
    _need_classes(logits, 4, "targeted_dlr_loss", "targeted_margin_loss")
    first, _, third, fourth = tf.unstack(tf.math.top_k(logits, 4).values, axis=-1)
    return tf.math.divide_no_nan(targeted_margin_loss(logits, labels, targets), first - (third + fourth) / 2)


def likely_wrong_class(logits, labels, rank):
    """Returns the class, int32 [B], that comes `rank`-th (from 0) among the wrong ones: a target of attacks."""
    order = tf.argsort(_without(logits, labels), axis=-1, direction="DESCENDING", stable=True)
    return tf.gather(order, rank % (logits.shape[-1] - 1), axis=-1)


def _logit_of(logits, classes):
    return tf.gather(logits, classes, axis=-1, batch_dims=1)


def _without(logits, classes):
    """The logits, that of the given class of each image at float32's lowest value."""
    chosen = tf.one_hot(classes, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.where(chosen, logits.dtype.min, logits)


def _need_classes(logits, count, name, other):
    if logits.shape[-1] < count:
        raise ValueError(f"{name} needs {count} classes, the classifier has {logits.shape[-1]}: take @{other}.")


@gin.configurable("as_paper")
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
@dataclasses.dataclass(frozen=True)
class SplitAsCode(AcGanAsCode):
    """The weights of the authors' released code with the split loss: 0.5, but 1 for the source of generated images.

    So their ablation of the split loss changes two things at once.
    """

    fake: float = 1.0


def ac_gan_discriminator_loss(real, fake, labels, fake_labels, weights: Weights):
    """Equation 8: the discriminator maximises L_S + L_C(real) + L_C(fake).

    Args:
        real: `Verdict` on B real (adversarial) images.
        fake: `Verdict` on B generated images.
        labels: classes of the real images, int [B].
        fake_labels: classes that the generator was asked for, int [B].
        weights: weight of each term.
    """
    split = split_discriminator_loss(real, fake, labels, fake_labels, weights)
    return split + weights.fake_class * class_loss(fake.classes, fake_labels)


def split_discriminator_loss(real, fake, labels, fake_labels, weights: Weights):
    """Equation 9: the discriminator maximises L_S + L_C1, with C1 on REAL images only.

    Args and returns as `ac_gan_discriminator_loss`; `fake_labels` are not used, which is the point of the split.
    """
    del fake_labels
    return (
        weights.real * source_loss(real.source, real=True)
        + weights.fake * source_loss(fake.source, real=False)
        + weights.real_class * class_loss(real.classes, labels)
    )


def generator_loss(fake, fake_labels, weights: Weights):
    """Equations 8 and 9: the generator maximises L_C(fake) - L_S, in the non-saturating form BCE(S(fake), 1).

    Args:
        fake: `Verdict` on B generated images.
        fake_labels: classes that the generator was asked for, int [B].
        weights: weight of each term.
    """
    return weights.generator * source_loss(fake.source, real=True) + weights.generator_class * class_loss(
        fake.classes, fake_labels
    )


def attack_objective(real, labels, weights: Weights):
    """What the attacker maximises in co-training: the discriminator's loss on real images (equation 2).

    Args:
        real: `Verdict` on B attacked real images.
        labels: their classes, int [B].
        weights: weight of each term.
    """
    return weights.attack * source_loss(real.source, real=True) + weights.attack_class * class_loss(
        real.classes, labels
    )


def fine_tuning_loss(real_logits, labels, fake_logits, fake_labels, fake_weight: float):
    """Equation 10 (and 6): CE(f(x_adv), y) + lambda CE(f(fake_adv), y), summed over the batch (a scalar).

    A sum and not a value per image, since real and generated images may differ in number; the caller divides by the
    global number of real images.

    Args:
        real_logits: class logits of attacked real images, [B, K].
        labels: their classes, int [B].
        fake_logits: class logits of attacked generated images, [F, K].
        fake_labels: the classes that the generator was asked for, int [F].
        fake_weight: lambda, 0.3 to 0.8 in the authors' code.
    """
    real = tf.reduce_sum(class_loss(real_logits, labels))
    return real + fake_weight * tf.reduce_sum(class_loss(fake_logits, fake_labels))


@dataclasses.dataclass(frozen=True)
class CoTrainingLosses:
    """The losses of the three players as co-training calls them: the discriminator's equation, and all weights.

    Attributes:
        discriminator_loss: `split_discriminator_loss` or `ac_gan_discriminator_loss`.
        weights: weight of each term.
    """

    discriminator_loss: Callable
    weights: Weights

    def discriminator(self, real, fake, labels, fake_labels):
        """Loss of the discriminator, [B]."""
        return self.discriminator_loss(real, fake, labels, fake_labels, self.weights)

    def generator(self, fake, fake_labels):
        """Loss of the generator, [B]."""
        return generator_loss(fake, fake_labels, self.weights)

    def attack(self, real, labels):
        """Objective of the attacker, [B]."""
        return attack_objective(real, labels, self.weights)


@gin.configurable
def split(weights: Weights = gin.REQUIRED) -> CoTrainingLosses:
    """The paper's own loss, equation 9, with `@as_paper()` or `@split.as_code()` weights."""
    return CoTrainingLosses(split_discriminator_loss, weights)


@gin.configurable
def ac_gan(weights: Weights = gin.REQUIRED) -> CoTrainingLosses:
    """The AC-GAN loss, equation 8, with `@as_paper()` or `@ac_gan.as_code()` weights."""
    return CoTrainingLosses(ac_gan_discriminator_loss, weights)
