"""Any Keras network as a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.class_branch import Classifier


class KerasClassifier(Classifier):
    """A Keras model of any make as a classifier, f(x) of the paper's equation 6; its weights are shared, not copied.

    `FineTuning` makes one of a Keras model by itself; a subclassed model, which does not know its input, needs it.

    Args:
        network: a model of Keras 2 (`robgan_tf.keras`) from images float32 [B, H, W, C] in [-1, 1] to logits [B, K].
        image_shape: (H, W, C); None where the network knows it.
        name: name of the model.

    Raises:
        ValueError: for a model of Keras 3, of another shape, or with probabilities in place of logits.
    """

    def __init__(self, network: keras.Model, image_shape: Sequence[int] | None = None, name: str = "keras_classifier"):
        super().__init__(name=name)
        _check_make(network)
        if image_shape is None:
            # Neither a subclassed model nor a Sequential without an Input has the attribute.
            shape = getattr(network, "input_shape", None)
            if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
                raise ValueError(
                    f"The network {network.name} takes images of {shape or 'unknown shape'}: give it an Input of "
                    f"(height, width, channels), or say KerasClassifier(network, image_shape=...)."
                )
            image_shape = shape[1:]
        self.network = network
        self.image_shape = tuple(image_shape)
        shape = self(tf.zeros([1, *self.image_shape])).shape  # makes the weights, where there are none yet
        if shape.rank != 2:
            raise ValueError(f"The network {network.name} answers with shape {shape}, not with class logits [B, K].")
        self.num_classes = int(shape[-1])

    def call(self, images, training=False) -> tf.Tensor:
        """Returns class logits float32 [B, K] of images float32 [B, H, W, C] in [-1, 1].

        `training`: whether batch norm and dropout are in training mode.
        """
        return tf.cast(self.network(images, training=training), tf.float32)

    def another(self) -> KerasClassifier:
        """See `Classifier.another`; it has weights of its own."""
        try:
            clone = keras.models.clone_model(self.network)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"The network {self.network.name} can't be made a second time, for a moving average: give its class a "
                f"get_config(), or set average_decay = 0."
            ) from error
        return KerasClassifier(clone, self.image_shape, name=self.name)


def as_classifier(network: keras.Model) -> Classifier:
    """Returns a classifier of any Keras network; one that is a `Classifier` as it is.

    Raises:
        ValueError: see `KerasClassifier`.
    """
    return network if isinstance(network, Classifier) else KerasClassifier(network)


def _check_make(network):
    """Raises ValueError for what is no model of Keras 2, or ends in a softmax."""
    if not isinstance(network, keras.Model):
        of_keras_3 = not isinstance(network, keras.layers.Layer) and any(
            base.__module__.split(".")[0] == "keras" for base in type(network).__mro__
        )
        found = "one of Keras 3" if of_keras_3 else f"{network!r}"
        raise ValueError(
            f"The classifier must be a model of Keras 2, got {found}: build it of `from robgan_tf import keras`, which "
            f"is tf-keras on TensorFlow 2.16 and later."
        )
    last = network.layers[-1] if network.layers else None
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(f"The network {network.name} ends in a softmax: leave it out, logits are expected.")
