"""BPDA: the gradient of a stand-in where a step of a classifier has none (Athalye, Carlini & Wagner, ICML 2018)."""

from __future__ import annotations

from typing import Callable

import gin
import tensorflow as tf


def identity(inputs: tf.Tensor) -> tf.Tensor:
    """Returns its input: the stand-in for a step that changes little, such as a purifier or a compression."""
    return inputs


@gin.register
class BackwardPass:
    """A function, with the gradient of another one: the backward pass differentiable approximation (section 4.1).

    Put around a layer, or around the transformation of images before a network, it makes an adaptive attack of every
    attack: answers stay exactly those of the classifier.

    Args:
        function: the step as it is: a tensor to a tensor.
        surrogate: another one, that has a gradient, of the same shapes; by default the identity.

    Raises:
        ValueError: when called, where the two give different shapes.
    """

    def __init__(self, function: Callable = gin.REQUIRED, surrogate: Callable = identity):
        self.function = function
        self.surrogate = surrogate

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns what `function` gives for `inputs`."""
        outputs = tf.stop_gradient(self.function(tf.stop_gradient(inputs)))
        stand_in = self.surrogate(inputs)
        if not outputs.shape.is_compatible_with(stand_in.shape):
            raise ValueError(
                f"BackwardPass: the function gives {outputs.shape}, its surrogate {stand_in.shape}; they must be alike."
            )
        return _with_gradient_of(outputs, stand_in)


@tf.custom_gradient
def _with_gradient_of(outputs, stand_in):
    """The values of `outputs`, with gradients that go to `stand_in` as if it had been these."""

    def gradient(upstream):
        return None, tf.cast(upstream, stand_in.dtype)

    return tf.identity(outputs), gradient
