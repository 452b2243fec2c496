"""What fine-tuning trains a classifier for: the loss of each image, and what its attacker maximises.

An objective has `attack`, a function for the attacker, and `loss`, which the update minimises; `check` refuses what
can't go with it. All images are float32 [B, H, W, C] in [-1, 1], all labels int32 [B].
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.losses.finetuning import divergence, misclassification_loss
from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import magnified
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.values import checked, number

# Of squared norms: the root has no derivative at 0, where an image's loss is flat.
_TINY = 1e-24


class Objective:
    """Base of the objectives.

    Attributes:
        soft_labels: whether `loss` takes probabilities of the classes [B, K] for labels, too.
        attacked_by_its_loss: whether `attack` grows along the gradient of `loss` in the attacked images, so that one
            pass serves both (free training).
    """

    soft_labels = False
    attacked_by_its_loss = False

    def check(self, classifier: Classifier, attacker: Attack | None):
        """Raises a ValueError where classifier or attacker do not go with the objective."""

    def check_soft_labels(self, setting: str, num_classes: int, attacked: bool):
        """Raises a ValueError where the objective needs one class for each image, and a setting gives probabilities.

        Args:
            setting: of `FineTuning`, for the message.
            num_classes: number of classes.
            attacked: whether the attack gets them, too.
        """
        if not self.soft_labels:
            raise ValueError(
                f"FineTuning.{setting} needs an objective that takes probabilities of the classes, and "
                f"{type(self).__name__} takes one class for each image: leave it out, or take @adversarial() or "
                f"@trades()."
            )

    def attack(self, classifier: Classifier, images, labels) -> Callable:
        """Returns a function of images that the attacker of `images` maximises, [B]."""
        raise NotImplementedError

    def loss(self, classifier: Classifier, images, adversarial, labels, training: bool):
        """Returns the loss of each image, [B], and the class logits [B, K] at the attacked images.

        Args:
            classifier: the classifier.
            images: the images before the attack.
            adversarial: the attacked images; `images` themselves without an attacker.
            labels: their classes, int32 [B]; with `soft_labels` also their probabilities, float32 [B, K].
            training: whether batch norm works on the statistics of the batch.
        """
        raise NotImplementedError


def _has_loss_of(objective: Objective, base: type[Objective]) -> bool:
    """Whether an objective has attack and loss of a class, and not a subclass's, of another gradient."""
    return all(getattr(type(objective), name) is getattr(base, name) for name in ("attack", "loss"))


@gin.configurable("adversarial")
@dataclasses.dataclass(frozen=True)
class Adversarial(Objective):
    """CE(f(x'), y) at the attacked image x': adversarial training (Madry et al., ICLR 2018; Rob-GAN, eq. 3, 6, 10).

    Attributes:
        attack_loss: maps class logits and labels to what the attacker maximises: `@class_loss`, `@margin_loss` or
            another.
    """

    attack_loss: Callable = class_loss
    soft_labels = True

    @property
    def attacked_by_its_loss(self):
        """See `Objective`."""
        # gin wraps what it makes references to.
        return _has_loss_of(self, Adversarial) and inspect.unwrap(self.attack_loss) is class_loss

    def check_soft_labels(self, setting, num_classes, attacked):
        """See `Objective`: tries the attack's loss on probabilities."""
        super().check_soft_labels(setting, num_classes, attacked)
        try:
            if attacked:
                self.attack_loss(tf.zeros([2, num_classes]), tf.fill([2, num_classes], 1 / num_classes))
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"FineTuning.{setting} gives images probabilities of several classes, and {self.attack_loss.__name__}, "
                f"which the attack maximises, takes one class: set adversarial.attack_loss = @class_loss."
            ) from error

    def attack(self, classifier, images, labels):
        """See `Objective`: the class loss, or what `attack_loss` is."""
        del images
        return lambda images: self.attack_loss(classifier(images, training=False), labels)

    def loss(self, classifier, images, adversarial, labels, training):
        """See `Objective`."""
        del images
        logits = classifier(adversarial, training=training)
        return class_loss(logits, labels), logits


@gin.configurable("trades")
@checked("trades", beta=number(above=0))
@dataclasses.dataclass(frozen=True)
class Trades(Objective):
    """CE(f(x), y) + beta KL(f(x) || f(x')) at the x' of the largest KL (Zhang et al., ICML 2019, eq. 5, Algorithm 1).

    The clean images teach the classes, and the attacked ones to stay with the answer. As in the authors' code, both
    f(x) and f(x') have a gradient, the attack sees the network in inference mode, and a network with batch norm works
    on the statistics of clean and attacked images separately, in two passes. There the attack starts at
    x + 0.001 N(0, I); here it is the attacker's random start, a point of the ball.

    Attributes:
        beta: weight of the second term (1/lambda in the paper); 6 for CIFAR-10.
    """

    beta: float = 6.0
    soft_labels = True

    @property
    def attacked_by_its_loss(self):
        """See `Objective`; f(x) has no part in the gradient in x'."""
        return _has_loss_of(self, Trades)

    def check(self, classifier, attacker):
        """Raises a ValueError without an attacker, or with one that starts where the objective has no gradient."""
        if attacker is None or not attacker.random_start:
            raise ValueError(
                "FineTuning.objective = @trades() needs an attacker with a random start, since KL(f(x) || f(x')) has "
                "no gradient at x' = x: set FineTuning.attacker and finetuning/Attacker.random_start = True."
            )

    def attack(self, classifier, images, labels):
        """See `Objective`: KL(f(x) || f(x')) of each image; the labels have no part in it."""
        del labels
        clean = classifier(images, training=False)
        return lambda images: divergence(clean, classifier(images, training=False))

    def loss(self, classifier, images, adversarial, labels, training):
        """See `Objective`."""
        clean = classifier(images, training=training)
        logits = classifier(adversarial, training=training)
        return class_loss(clean, labels) + self.beta * divergence(clean, logits), logits


@gin.configurable("mart")
@checked("mart", beta=number(above=0))
@dataclasses.dataclass(frozen=True)
class Mart(Adversarial):
    """`misclassification_loss` at the attacked images of adversarial training (Wang et al., ICLR 2020, Algorithm 1).

    Images that the classifier gets wrong before the attack count more. As in the authors' code, clean and attacked
    images go through the network in two passes, and all answers have a gradient.

    Attributes:
        beta: weight of the regulariser (lambda in the paper); 5 in the authors' code for CIFAR-10.
    """

    beta: float = 5.0
    soft_labels = False

    def check(self, classifier, attacker):
        """Raises a ValueError without an attacker, or for a single class, which nothing can be mistaken for."""
        if attacker is None:
            raise ValueError("FineTuning.objective = @mart() needs an attacker: set FineTuning.attacker = @Attacker().")
        if classifier.num_classes < 2:
            raise ValueError("FineTuning.objective = @mart() needs 2 classes or more, the data have 1.")

    def loss(self, classifier, images, adversarial, labels, training):
        """See `Objective`."""
        clean = classifier(images, training=training)
        logits = classifier(adversarial, training=training)
        return misclassification_loss(clean, logits, labels, self.beta), logits


@gin.configurable("lipschitz_regularised")
@checked("lipschitz_regularised", weight=number(above=0))
@dataclasses.dataclass(frozen=True)
class LipschitzRegularised(Adversarial):
    """CE(f(x), y) + lambda ||d CE(f(x), y) / dx||_2: the local Lipschitz value as a regulariser (Rob-GAN, eq. 4 and 5).

    With an attacker, x is the attacked image. With batch norm in training mode, where images share their statistics,
    the derivative is that of the sum over the batch.

    Attributes:
        weight: lambda, for pixels in [-1, 1].
    """

    weight: float = 1.0

    def check(self, classifier, attacker):
        """Raises a ValueError for a network that computes its blocks anew, which can be differentiated once alone."""
        if any(getattr(module, "recompute", False) for module in classifier.submodules):
            network = type(getattr(classifier, "discriminator", classifier)).__name__
            raise ValueError(
                "FineTuning.objective = @lipschitz_regularised() needs second derivatives, which recomputed blocks do "
                f"not have: set {network}.recompute = False, and FineTuning.accumulation above 1 to save memory."
            )

    def loss(self, classifier, images, adversarial, labels, training):
        """See `Objective`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(adversarial)
            per_image, logits = super().loss(classifier, images, adversarial, labels, training)
            # One factor for all: batch norm makes the loss of an image depend on the others.
            _, factor = magnified(tf.reduce_max(per_image))
            large = factor * per_image
        squares = tf.reduce_sum(tape.gradient(large, adversarial) ** 2, axis=[1, 2, 3])
        return per_image + self.weight * tf.sqrt(tf.maximum(squares, _TINY)) / factor, logits
