"""Auto-PGD: projected gradient ascent that finds its own step sizes (Croce & Hein, ICML 2020, algorithm 1)."""

from __future__ import annotations

from typing import Callable, NamedTuple

import gin
import tensorflow as tf

from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.apgd_l1 import larger_start, search_l1
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import score_and_gradient
from robgan_tf.players.attacker.judge import over_images, repeat_on_standing
from robgan_tf.players.attacker.threat_model import L1, ThreatModel
from robgan_tf.values import check, number, whole


class _State(NamedTuple):
    """What the loop carries. Images are [B, H, W, C], `step` is [B, 1, 1, 1], everything else [B]."""

    clean: tf.Tensor
    image: tf.Tensor
    previous: tf.Tensor
    gradient: tf.Tensor
    loss: tf.Tensor
    step: tf.Tensor
    best_image: tf.Tensor
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    rises: tf.Tensor  # steps since the last checkpoint that raised the loss
    halved: tf.Tensor  # whether the last checkpoint halved the step
    checked_loss: tf.Tensor  # best loss at the last checkpoint
    fooling: tf.Tensor  # the last image that the classifier got wrong
    fooled: tf.Tensor  # whether there is one


@gin.register
class AutoPGD(Attack):
    """PGD with momentum, whose step begins with 2 epsilon and halves, for each image by itself, where it does not pay.

    At the checkpoints it halves where fewer than a share `rho` of the steps since the last one raised the loss, or
    where neither step nor best loss have changed since the last one; and it goes on from the best point so far.

    Args:
        threat_model: norm, epsilon and projection.
        steps: number of gradient steps; 100 in AutoAttack.
        loss: `@class_loss` (APGD-CE), `@dlr_loss` (APGD-DLR), `@targeted_dlr_loss` with targets (APGD-T) or another.
        targets: see `Attack`; 9 in AutoAttack's APGD-T.
        restarts: see there.
        momentum: alpha, weight of the new step against the last one.
        rho: see above.
        samples: passes that each gradient is averaged over, for classifiers that are random on purpose; 20 in
            AutoAttack's "rand" version.
        objective: `loss` by its former name, for stored configurations.

    Raises:
        ValueError: for settings out of their range.
    """

    random_start = True

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = 100,
        loss: Callable = class_loss,
        targets: int = 0,
        restarts: int = 1,
        momentum: float = 0.75,
        rho: float = 0.75,
        samples: int = 1,
        objective: Callable | None = None,
    ):
        super().__init__(threat_model, loss if objective is None else objective, targets, restarts)
        for name, value in {"steps": steps, "samples": samples}.items():
            check(f"AutoPGD.{name}", value, whole(1))
        for name, value in {"momentum": momentum, "rho": rho}.items():
            check(f"AutoPGD.{name}", value, number(above=0, most=1), "the paper's is 0.75")
        self.steps = steps
        self.momentum = momentum
        self.rho = rho
        self.samples = samples

    @property
    def name(self):
        short = {"class_loss": "ce", "dlr_loss": "dlr", "targeted_dlr_loss": "t"}
        return f"apgd-{short.get(self.loss.__name__, self.loss.__name__)}"

    @property
    def label(self):
        samples = f", {self.samples} passes each" if self.samples > 1 else ""
        return f"APGD-{self.steps} on {self.loss.__name__}{samples}{self.runs_label()}"

    def start(self, images, seed=None):
        """See `Attack`. In the l1 ball the search begins in one three times as large."""
        if isinstance(self.threat_model, L1):
            return larger_start(self.threat_model, images, seed)
        return super().start(images, seed)

    def search(self, start, images, judge, seed):
        """See `Attack`."""
        if isinstance(self.threat_model, L1):
            return search_l1(self, start, images, judge)
        ball = self.threat_model
        # For each step the number of steps since the last checkpoint, at checkpoints; 0 elsewhere.
        spans = tf.constant(checkpoint_spans(self.steps), tf.float32)

        def step(index, state, judge):
            # 1. A gradient step, averaged with the last one. The first has none before it.
            stepped = ball.project(state.image + state.step * ball.ascent_direction(state.gradient), state.clean)
            momentum = tf.where(index == 0, 1.0, self.momentum)
            inertia = (1 - momentum) * (state.image - state.previous)
            image = ball.project(state.image + momentum * (stepped - state.image) + inertia, state.clean)
            (loss, wrong), gradient = score_and_gradient(judge, image, self.samples)
            # 2. The best so far.
            better = loss > state.best_loss
            best_image, best_gradient = (
                tf.where(over_images(better), new, old)
                for new, old in ((image, state.best_image), (gradient, state.best_gradient))
            )
            best_loss = tf.maximum(loss, state.best_loss)
            rises = state.rises + tf.cast(loss > state.loss, tf.float32)
            # 3. At a checkpoint: halve the step where it does not pay, and go back to the best point.
            is_checkpoint = spans[index] > 0
            no_change = ~state.halved & (best_loss <= state.checked_loss)
            halve = is_checkpoint & ((rises < self.rho * spans[index]) | no_change)
            back = over_images(halve)
            return _State(
                clean=state.clean,
                image=tf.where(back, best_image, image),
                previous=state.image,
                gradient=tf.where(back, best_gradient, gradient),
                loss=tf.where(halve, best_loss, loss),
                step=tf.where(back, state.step / 2, state.step),
                best_image=best_image,
                best_gradient=best_gradient,
                best_loss=best_loss,
                rises=tf.where(is_checkpoint, tf.zeros_like(rises), rises),
                halved=tf.where(is_checkpoint, halve, state.halved),
                checked_loss=tf.where(is_checkpoint, best_loss, state.checked_loss),
                fooling=tf.where(over_images(wrong), image, state.fooling),
                fooled=state.fooled | wrong,
            )

        (loss, wrong), gradient = score_and_gradient(judge, start, self.samples)
        state = _State(
            clean=images,
            image=start,
            previous=start,
            gradient=gradient,
            loss=loss,
            step=tf.ones_like(images[:, :1, :1, :1]) * 2.0 * ball.epsilon,
            best_image=start,
            best_gradient=gradient,
            best_loss=loss,
            rises=tf.zeros_like(loss),
            halved=tf.zeros_like(wrong),
            checked_loss=loss,
            fooling=start,
            fooled=wrong,
        )
        state = repeat_on_standing(step, state, judge, self.steps, lambda state: ~state.fooled)
        return tf.where(over_images(state.fooled), state.fooling, state.best_image)

    def settings(self):
        """See `Attack`."""
        own = {"steps": self.steps, "momentum": self.momentum, "rho": self.rho, "random_start": True}
        return {**own, "samples": self.samples, **super().settings()}


def checkpoint_spans(steps: int) -> list[int]:
    """Returns, for each step, the number of steps since the last checkpoint if it ends with a checkpoint, else 0.

    The checkpoints are w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06).
    """
    percents = [0, 22]
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    checkpoints = [-(-percent * steps // 100) for percent in percents]
    spans = [0] * steps
    for last, this in zip(checkpoints, checkpoints[1:]):
        if last < this <= steps:
            spans[this - 1] = this - last
    return spans
