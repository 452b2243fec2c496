"""FAB, the fast adaptive boundary attack: the nearest misclassified image (Croce & Hein, ICML 2020, algorithm 1)."""

from __future__ import annotations

from typing import NamedTuple

import gin
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import score_and_gradient
from robgan_tf.players.attacker.hyperplane import to_hyperplane
from robgan_tf.players.attacker.judge import over_images, repeat_on_standing
from robgan_tf.players.attacker.losses import targeted_margin_loss
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, ThreatModel
from robgan_tf.values import check, number, whole


class _State(NamedTuple):
    """What the loop carries. Images are [B, H, W, C], everything else [B]."""

    clean: tf.Tensor
    image: tf.Tensor
    steps: tf.Tensor  # how many steps it has done
    turned_back: tf.Tensor  # whether it was misclassified a moment ago, and has gone back towards the clean image
    nearest: tf.Tensor  # the nearest misclassified image
    distance: tf.Tensor  # how far that is from the clean one


@gin.register
class FAB(Attack):
    """Targeted FAB (FAB-T in AutoAttack): steps to the boundary between the right class and a target.

    At each step the classifier is taken as linear: image and clean image are projected on the hyperplane where both
    classes are equal, within the range of pixels, and the next image is a mean of the two projections, a little beyond.
    A misclassified image is kept if it is the nearest so far, and the search goes on from between it and the clean one.
    The steps are independent of epsilon. An image is left alone once a misclassified one is found within epsilon.

    Args:
        threat_model: norm and epsilon.
        steps: number of steps; 100 in AutoAttack.
        targets: target classes, see `Attack`; 9 in AutoAttack.
        restarts: see `Attack`; the first run starts at the image, others at random within half of epsilon.
        alpha_max: largest weight of the clean image's projection.
        eta: how far a step goes, where 1 is to the hyperplane.
        beta: share of the distance from the clean image that is left when the search turns back.

    Raises:
        ValueError: for settings out of their range.
    """

    name = "fab-t"

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = 100,
        targets: int = 9,
        restarts: int = 1,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
    ):
        check("FAB.targets", targets, whole(1))
        super().__init__(threat_model, targeted_margin_loss, targets, restarts)
        check("FAB.steps", steps, whole(1))
        check("FAB.alpha_max", alpha_max, number(least=0, most=1))
        check("FAB.eta", eta, number(least=1, most=2))
        check("FAB.beta", beta, number(least=0, most=1))
        self.steps = steps
        self.alpha_max = alpha_max
        self.eta = eta
        self.beta = beta

    @property
    def label(self):
        return f"FAB-{self.steps}{self.runs_label()}"

    def start_of_run(self, images, seed, run):
        """See `Attack`."""
        random = images + self.threat_model.random_perturbation(tf.shape(images), seed) / 2
        return tf.where(run < self.targets, images, tf.clip_by_value(random, *PIXEL_RANGE))

    def search(self, start, images, judge, seed):
        """See `Attack`."""
        ball = self.threat_model

        def step(index, state, judge):
            (loss, wrong), gradient = score_and_gradient(judge, state.image)
            # 1. Keep the nearest one.
            distance = ball.size(state.image - state.clean)
            nearer = wrong & (distance < state.distance)
            # 2. A misclassified image goes back, and then does its step from there.
            back = wrong & ~state.turned_back
            between = state.clean + self.beta * (state.image - state.clean)
            stepped = self._step(state.image, state.clean, loss, gradient)
            return _State(
                clean=state.clean,
                image=tf.where(over_images(back), between, stepped),
                steps=state.steps + tf.cast(~back, tf.int32),
                turned_back=back,
                nearest=tf.where(over_images(nearer), state.image, state.nearest),
                distance=tf.where(nearer, distance, state.distance),
            )

        batch = tf.shape(images)[:1]
        state = _State(
            clean=images,
            image=start,
            steps=tf.zeros(batch, tf.int32),
            turned_back=tf.zeros(batch, tf.bool),
            nearest=start,
            distance=tf.fill(batch, float("inf")),
        )

        def goes_on(state):
            return (state.distance > ball.epsilon) & (state.steps <= self.steps)

        # Each step may turn back once; the last image is looked at, too.
        state = repeat_on_standing(step, state, judge, 2 * self.steps + 1, goes_on)
        return ball.project(state.nearest, images)

    def _step(self, image, clean, height, gradient):
        """The next image: see the class. `height` [B] is the margin, below zero where the right class is ahead."""
        ball = self.threat_model
        from_image = to_hyperplane(ball, image, gradient, height)
        clean_height = height + tf.reduce_sum(gradient * (clean - image), axis=[1, 2, 3])
        from_clean = to_hyperplane(ball, clean, gradient, clean_height)
        length, clean_length = (tf.maximum(ball.size(change), 1e-8) for change in (from_image, from_clean))
        weight = over_images(tf.minimum(length / (length + clean_length), self.alpha_max))
        mean = (1 - weight) * (image + self.eta * from_image) + weight * (clean + self.eta * from_clean)
        return tf.clip_by_value(mean, *PIXEL_RANGE)

    def check_training(self):
        """See `Attack`."""
        raise ValueError("FAB looks for misclassified images, of which training knows nothing: take @Attacker().")

    def settings(self):
        """See `Attack`."""
        own = {"steps": self.steps, "alpha_max": self.alpha_max, "eta": self.eta, "beta": self.beta}
        return {**own, **super().settings()}
