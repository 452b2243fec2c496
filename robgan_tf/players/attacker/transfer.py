"""Transfer: adversarial images of one classifier, given to another."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack, is_wrong
from robgan_tf.players.attacker.judge import Judge, Score
from robgan_tf.players.attacker.losses import likely_wrong_class


@gin.register
class Transfer(Attack):
    """Another attack on another classifier, whose adversarial images this one is given.

    Args:
        attack: the attack on the other classifier.
        source: that classifier, images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K], such as
            `@load_logits()`.

    Raises:
        ValueError: for something else than an attack.
    """

    name = "transfer"
    needs_gradient = False  # of the attacked one

    def __init__(self, attack: Attack = gin.REQUIRED, source: Callable = gin.REQUIRED):
        if not isinstance(attack, Attack):
            raise ValueError(f"Transfer.attack must be an attack such as @evaluation/PGD(), got {attack!r}.")
        super().__init__(attack.threat_model, attack.loss, attack.targets, attack.restarts)
        self.attack = attack
        self.source = source

    @property
    def label(self):
        return f"transfer of {self.attack.label}"

    def with_epsilon(self, epsilon):
        """See `Attack`."""
        other = super().with_epsilon(epsilon)
        other.attack = self.attack.with_epsilon(epsilon)
        return other

    def fool(self, logits, images, labels, seed, run=0):
        """See `Attack`: the gradients are the source's, and of the points on the way those count that fool `logits`."""
        chosen = [likely_wrong_class(self.source(images), labels, run % self.targets)] if self.targets else []

        def score(images, labels, *chosen):
            return Score(self.loss(self.source(images), labels, *chosen), is_wrong(logits(images), labels))

        start = self.attack.start_of_run(images, seed, run)
        return tf.stop_gradient(self.attack.search(start, images, Judge(score, [labels, *chosen], self.splits), seed))

    def search(self, start, images, judge, seed):
        """Not used: see `fool`."""
        raise NotImplementedError("Transfer attacks its source alone.")

    def check_training(self):
        """See `Attack`."""
        raise ValueError("Transfer fools another classifier, of which training knows nothing: take @Attacker().")

    def settings(self):
        """See `Attack`."""
        source = getattr(self.source, "directory", None) or getattr(self.source, "__name__", str(self.source))
        return {**self.attack.settings(), "attack": self.attack.name, "source": source}
