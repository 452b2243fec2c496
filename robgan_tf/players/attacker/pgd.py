"""The attacker: projected gradient ascent on an objective that the caller gives (Madry et al., ICLR 2018)."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.threat_model import ThreatModel, epsilon_255

# Under float16 smaller losses are magnified like this one, to a gradient in the logits of 2**12 at most.
_SMALLEST_LOSS = 2.0**-12


def magnified(losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns losses, of any shape, whose gradients float16 can hold, and what each was multiplied by, else 1.

    Once a network is sure of an image, the gradient of its cross-entropy is about as small as the loss, and float16
    ends at 6e-8: unscaled, an attack on what the network is surest of would stand still. A factor of about 1 / loss
    for each image keeps the gradients at the size that they have for an image in doubt, and changes no direction.
    """
    if keras.mixed_precision.global_policy().name != "mixed_float16":
        return losses, tf.ones([])
    factors = tf.stop_gradient(1.0 / tf.clip_by_value(tf.abs(losses), _SMALLEST_LOSS, 1.0))
    return losses * factors, factors


@gin.configurable
class Attacker:
    """PGD: x <- project(x + step_size * direction(gradient)), `steps` times (Rob-GAN, equation 2).

    With one step of size epsilon and no random start it is FGSM (Goodfellow et al., ICLR 2015).

    Args:
        threat_model: norm, epsilon and projection, e.g. `@LInf()`.
        steps: number of gradient steps.
        step_size: length of a step on the pixel scale [-1, 1]. Give this or `relative_step_size`.
        relative_step_size: length of a step as a share of epsilon (the paper's epsilon / 5 is 0.2).
        random_start: whether it starts at a random point of the ball instead of at the image.

    Raises:
        ValueError: for settings that contradict each other, or that can't reach the border of the ball.
    """

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = gin.REQUIRED,
        step_size: float | None = None,
        relative_step_size: float | None = None,
        random_start: bool = False,
    ):
        if not isinstance(threat_model, ThreatModel):
            raise ValueError(f"Attacker.threat_model must be a threat model such as @LInf(), got {threat_model!r}.")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"Attacker.steps must be a whole number >= 1, got {steps!r}; for no attack set the attacker to None."
            )
        if (step_size is None) == (relative_step_size is None):
            raise ValueError(
                f"Give exactly one of Attacker.step_size (got {step_size!r}) and Attacker.relative_step_size "
                f"(got {relative_step_size!r})."
            )
        length = step_size if step_size is not None else relative_step_size
        if not 0 < length < math.inf:
            raise ValueError(f"The attack's steps must have a finite positive length, got {length}.")
        self.steps = steps
        self.absolute_step_size = step_size
        self.relative_step_size = relative_step_size
        self.random_start = random_start
        self.threat_model = threat_model
        self._check_reach()

    @property
    def step_size(self):
        """Length of a step on the pixel scale [-1, 1]."""
        if self.absolute_step_size is not None:
            return self.absolute_step_size
        return self.relative_step_size * self.threat_model.epsilon

    def with_epsilon(self, epsilon) -> Attacker:
        """Returns the same attack on a ball of another radius; a relative step size scales with it.

        Args:
            epsilon: a number, or a scalar tensor, so that one graph serves many radii; only a number can be checked.

        Raises:
            ValueError: where the steps can't reach it.
        """
        other = copy.copy(self)
        other.threat_model = dataclasses.replace(self.threat_model, epsilon=epsilon)
        if not tf.is_tensor(epsilon):
            other._check_reach()
        return other

    def _check_reach(self):
        epsilon, reach = self.threat_model.epsilon, self.steps * self.step_size
        # A tolerance of rounding alone: 5 steps of epsilon / 5 are allowed, and of the length that the message advises.
        if reach < epsilon * (1 - 1e-5):
            raise ValueError(
                f"The attack can't reach epsilon = {epsilon:g} ({epsilon_255(epsilon):.2f}/255): {self.steps} steps of "
                f"{self.step_size:g} go {reach:g} at most. Take at least {-int(-epsilon // self.step_size)} steps, or "
                f"a step_size of at least {epsilon / self.steps:g}."
            )

    def __call__(self, images, objective: Callable[[tf.Tensor], tf.Tensor], seed=None) -> tf.Tensor:
        """Returns adversarial images [B, H, W, C] within the threat model around `images`.

        Args:
            images: float32 [B, H, W, C] in [-1, 1].
            objective: see `ascend`.
            seed: int32 [2], needed for a random start.

        Raises:
            ValueError: where a random start has no seed.
        """
        images = tf.convert_to_tensor(images)
        return self.ascend(self.start(images, seed), images, objective)

    def start(self, images: tf.Tensor, seed=None) -> tf.Tensor:
        """Returns where the attack on `images` starts: a random point of the ball around each, or the images.

        Raises:
            ValueError: where a random start has no seed.
        """
        if not self.random_start:
            return images
        if seed is None:
            raise ValueError("An attack with a random start needs a seed (int32 [2]).")
        perturbation = self.threat_model.random_perturbation(tf.shape(images), seed)
        return self.threat_model.project(images + perturbation, images)

    def ascend(self, start: tf.Tensor, images: tf.Tensor, objective: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Returns the adversarial images that the attack's steps reach from `start`.

        Computes gradients with respect to the images alone, and assigns nothing.

        Args:
            start: [B, H, W, C] within the threat model around `images`.
            images: the clean images, float32 [B, H, W, C] in [-1, 1].
            objective: maps images to the loss of each, [B], which the attack maximises. It must evaluate its network in
                inference mode.
        """
        threat_model = self.threat_model

        def step(index, adversarial):
            direction = threat_model.ascent_direction(self._gradient(objective, adversarial))
            return index + 1, threat_model.project(adversarial + self.step_size * direction, images)

        _, adversarial = tf.while_loop(
            lambda index, _: index < self.steps,
            step,
            (0, start),
            maximum_iterations=self.steps,
        )
        return tf.stop_gradient(adversarial)

    def _gradient(self, objective, images) -> tf.Tensor:
        """The gradient of each image's loss, [B, H, W, C], but for a positive factor."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            losses, factors = magnified(objective(images))
            total = tf.reduce_sum(losses)
        gradient = tape.gradient(total, images)
        if factors.shape.rank:  # what overflows float16 all the same moves nothing, instead of making the image NaN
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        return gradient

    def describe(self) -> dict:
        """Returns all settings, for reports."""
        return {
            "name": "pgd",
            **self.threat_model.describe(),
            "steps": self.steps,
            "step_size": self.step_size,
            "relative_step_size": self.relative_step_size,
            "random_start": self.random_start,
        }


@gin.configurable
class MomentumAttacker(Attacker):
    """PGD along a running sum of gradients (Dong et al., CVPR 2018: "momentum iterative" attack).

    v <- momentum * v + gradient / mean |gradient|;  x <- project(x + step_size * direction(v)).

    Args:
        momentum: share of the sum that each step keeps, in [0, 1).
        threat_model: this one and the others are those of `Attacker`.
        steps: see there.
        step_size: see there.
        relative_step_size: see there.
        random_start: see there.

    Raises:
        ValueError: as `Attacker`, and for a momentum out of its range.
    """

    def __init__(
        self,
        momentum: float = gin.REQUIRED,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = gin.REQUIRED,
        step_size: float | None = None,
        relative_step_size: float | None = None,
        random_start: bool = False,
    ):
        super().__init__(threat_model, steps, step_size, relative_step_size, random_start)
        if not 0 <= momentum < 1:
            raise ValueError(f"MomentumAttacker.momentum must be in [0, 1), got {momentum}; usual are 0.75 to 0.9.")
        self.momentum = momentum

    def ascend(self, start, images, objective):
        def step(index, adversarial, velocity):
            gradient = self._gradient(objective, adversarial)
            size = tf.reduce_mean(tf.abs(gradient), axis=[1, 2, 3], keepdims=True)
            velocity = self.momentum * velocity + tf.math.divide_no_nan(gradient, size)
            direction = self.threat_model.ascent_direction(velocity)
            return index + 1, self.threat_model.project(adversarial + self.step_size * direction, images), velocity

        _, adversarial, _ = tf.while_loop(
            lambda index, *_: index < self.steps,
            step,
            (0, start, tf.zeros_like(start)),
            maximum_iterations=self.steps,
        )
        return tf.stop_gradient(adversarial)

    def describe(self):
        return {**super().describe(), "momentum": self.momentum}
