"""N-FGSM: one step from a noisy image, for training at a fraction of PGD's cost (de Jorge et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import score_and_gradient
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, ThreatModel
from robgan_tf.values import check, number


@gin.register
class NFGSM(Attack):
    """x' = x + eta + alpha sign(gradient at x + eta), eta uniform within k epsilon (de Jorge et al. 2022, eq. 4).

    Unlike other attacks it is not projected onto the ball in training: images may be as far as k epsilon + alpha away,
    and clipping them would bring catastrophic over-fitting back (section 4). They are clipped to the range of pixels,
    before and after the step. An evaluation, where an image outside of the ball proves nothing, gets its projection.

    Args:
        threat_model: norm and epsilon, e.g. `@LInf()`.
        noise: k, the radius of the noise as a multiple of epsilon.
        relative_step_size: alpha as a multiple of epsilon.
        loss: see `Attack`.

    Raises:
        ValueError: for numbers out of their range.
    """

    name = "n_fgsm"
    random_start = True
    one_step = True

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        noise: float = 2.0,
        relative_step_size: float = 1.0,
        loss: Callable = class_loss,
    ):
        super().__init__(threat_model, loss)
        check("NFGSM.noise", noise, number(above=0), "for no noise take @Attacker() with steps = 1")
        check("NFGSM.relative_step_size", relative_step_size, number(above=0))
        self.noise = noise
        self.relative_step_size = relative_step_size

    @property
    def label(self):
        return f"N-FGSM on {self.loss.__name__}, noise {self.noise:g} epsilon"

    def start(self, images, seed=None):
        """See `Attack`; the noise may reach beyond the ball."""
        wide = self.with_epsilon(self.noise * self.threat_model.epsilon)
        return super(NFGSM, wide).start(images, seed)

    def search(self, start, images, judge, seed):
        """See `Attack`; the result may be outside of the ball."""
        _, gradient = score_and_gradient(judge, start)
        step = self.relative_step_size * self.threat_model.epsilon * self.threat_model.ascent_direction(gradient)
        return tf.clip_by_value(start + step, *PIXEL_RANGE)

    def fool(self, logits, images, labels, seed, run=0):
        """See `Attack`: the point of the ball nearest to what training gets."""
        return self.threat_model.project(super().fool(logits, images, labels, seed, run), images)

    def __str__(self):
        noise, step = (size * self.threat_model.epsilon for size in (self.noise, self.relative_step_size))
        return f"a step of {step:g} from noise within {noise:g}, not projected, around the {self.threat_model}"

    def settings(self):
        """See `Attack`."""
        return {"noise": self.noise, "relative_step_size": self.relative_step_size, **super().settings()}
