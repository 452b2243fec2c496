"""An attack that is a function: how users bring one of their own, such as one that knows a defence."""

from __future__ import annotations

import inspect
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.threat_model import ThreatModel


@gin.register
class OwnAttack(Attack):
    """An attack of the user's own, whose images are judged by the same code as those of all others.

    An image outside of ball or range of pixels, or not finite, counts as a failure of the attack, not of the network.

    Args:
        function: (logits, images, labels, threat_model) -> adversarial images, where `logits` maps images float32
            [B, H, W, C] in [-1, 1] to class logits [B, K], `images` and the result are such images, and `labels` are
            the right classes, int32 [B]. With a parameter `seed` it is given one too, int32 [2], another for each run.
            It is called in a graph, unless `eager` is set.
        threat_model: norm and epsilon; the evaluation replaces epsilon.
        restarts: how many times it is tried, each on the images that still stand.
        eager: whether it is called with eager tensors, one batch at a time: for NumPy and other libraries.
        needs_gradient: whether it asks for gradients of `logits`; if not, it is tried on classifiers that have none.

    Raises:
        ValueError: for something else than a function of these.
    """

    def __init__(
        self,
        function: Callable = gin.REQUIRED,
        threat_model: ThreatModel = gin.REQUIRED,
        restarts: int = 1,
        eager: bool = False,
        needs_gradient: bool = True,
    ):
        super().__init__(threat_model, restarts=restarts)
        self.takes_seed = _takes_seed(function)
        self.function = function
        self.eager = eager
        self.needs_gradient = needs_gradient

    @property
    def name(self):
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def label(self):
        return f"{self.name}{self.runs_label()}"

    def fool(self, logits, images, labels, seed, run=0):
        """See `Attack`."""
        arguments = [images, labels, self.threat_model.epsilon, seed]

        def attack(images, labels, epsilon, seed):
            ball = type(self.threat_model)(float(epsilon) if self.eager else epsilon)
            given = {"seed": seed} if self.takes_seed else {}
            return tf.convert_to_tensor(self.function(logits, images, labels, ball, **given), tf.float32)

        found = tf.py_function(attack, arguments, tf.float32) if self.eager else attack(*arguments)
        if not self.eager and not found.shape.is_compatible_with(images.shape):
            raise ValueError(f"{self.name} must return images of shape {images.shape}, got {found.shape}.")
        # Anything but one image for each stops here, in a graph too.
        found = tf.ensure_shape(found, images.shape)
        tf.debugging.assert_equal(tf.shape(found), tf.shape(images), f"{self.name} must return an image for each.")
        return tf.stop_gradient(found)

    def search(self, start, images, judge, seed):
        """Not used: see `fool`."""
        raise NotImplementedError("OwnAttack is its function.")

    def check_training(self):
        """See `Attack`."""
        raise ValueError("OwnAttack is given a classifier, of which training knows nothing: take @Attacker().")

    def settings(self):
        """See `Attack`."""
        module = getattr(self.function, "__module__", None)
        return {"function": f"{module}.{self.name}", "restarts": self.restarts, "eager": self.eager}


def _takes_seed(function) -> bool:
    """Whether a function takes a seed beside what it must take."""
    try:
        parameters = inspect.signature(function).parameters
        inspect.signature(function).bind("logits", "images", "labels", "threat_model", **_seed_of(parameters))
    except TypeError as error:
        raise ValueError(
            f"OwnAttack.function must be a function of (logits, images, labels, threat_model), and of seed if wanted, "
            f"got {function!r}: {error}."
        ) from error
    return "seed" in parameters


def _seed_of(parameters) -> dict:
    return {"seed": None} if "seed" in parameters else {}
