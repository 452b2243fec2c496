"""Uniform noise: what any attack has to beat."""

from __future__ import annotations

import gin

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.threat_model import ThreatModel


@gin.register
class Noise(Attack):
    """Points drawn uniformly from the ball.

    Args:
        threat_model: norm, epsilon and projection.
        restarts: how many points are tried.

    Raises:
        ValueError: for fewer than one.
    """

    name = "noise"
    needs_gradient = False
    random_start = True

    def __init__(self, threat_model: ThreatModel = gin.REQUIRED, restarts: int = 10):
        super().__init__(threat_model, restarts=restarts)

    @property
    def label(self):
        return f"uniform noise, the worst of {self.restarts}"

    def search(self, start, images, judge, seed):
        """See `Attack`: the random start is all there is."""
        return start

    def settings(self):
        """See `Attack`."""
        return {"restarts": self.restarts}
