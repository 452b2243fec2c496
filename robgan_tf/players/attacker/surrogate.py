"""Transfer from a surrogate: a small network that learns the classifier's own answers, and is attacked in its place.

It needs the classifier's classes alone, so neither hidden gradients nor logits that are cut to steps help against it
(Papernot et al., "Practical black-box attacks against machine learning", 2017).
"""

from __future__ import annotations

import copy
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import TrainingSplit
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.keras2 import keras
from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.losses import targeted_margin_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import ThreatModel
from robgan_tf.players.attacker.transfer import Transfer
from robgan_tf.values import checked, whole

_BATCH = 64
# The network's last feature map is at most so many pixels wide.
_SIDE = 4


@gin.register
@checked(steps=whole(1), targets=whole(1), updates=whole(1), examples=whole(1), width=whole(1))
class Surrogate(Transfer):
    """PGD on a small network, towards each of the likeliest wrong classes, for images that fool the classifier.

    The network is trained on training images, clean and where one step of an attack on the network itself leads, with
    the classes that the classifier gives them there: so it learns its borders within the ball, where they matter.

    Args:
        threat_model: norm, epsilon and projection.
        steps: of PGD.
        targets: how many wrong classes, the likeliest first; as many as there are, if fewer.
        updates: of the network.
        examples: training images, at most.
        width: channels of the network's first layer.

    Raises:
        ValueError: for numbers below 1.
    """

    def __init__(
        self,
        threat_model: ThreatModel = gin.REQUIRED,
        steps: int = 20,
        targets: int = 9,
        updates: int = 300,
        examples: int = 5000,
        width: int = 32,
    ):
        self.updates = updates
        self.examples = examples
        self.width = width
        attack = PGD(
            threat_model,
            steps,
            relative_step_size=2.5 / steps,
            random_start=True,
            loss=targeted_margin_loss,
            targets=targets,
        )
        super().__init__(attack, _untrained)

    @property
    def label(self):
        return f"{self.attack.label} of a surrogate"

    def check_classes(self, num_classes):
        """See `Attack`: any number will do."""

    def prepared(self, logits: Callable, train: TrainingSplit, seed: int) -> Surrogate:
        """See `Attack`: trains the network."""
        other = copy.copy(self)
        examples = train.take(self.examples, seed)
        other.source, num_classes = self._train(logits, examples.images, seed)
        other.attack = copy.copy(self.attack)
        other.targets = other.attack.targets = max(min(self.targets, num_classes - 1), 1)
        return other

    def _train(self, logits, pixels, seed):
        """Returns the trained network, images -> logits, and the number of classes."""
        ball = self.threat_model

        num_classes = int(logits(to_pixel_range(pixels[:2])).shape[-1])
        network = small_network(pixels.shape[1:], num_classes, self.width, seed)
        optimizer = keras.optimizers.Adam(2e-3, jit_compile=False)  # see `training.optimization`
        optimizer.build(network.trainable_variables)
        lookahead = PGD(ball, 1, relative_step_size=1.25, random_start=True)

        def replica(pixels, seed):
            def classes_of(images):
                return tf.argmax(logits(images), axis=-1, output_type=tf.int32)

            images = to_pixel_range(pixels)
            classes = classes_of(images)
            explored = lookahead(images, lambda images: class_loss(network(images), classes), seed)
            images, classes = tf.concat([images, explored], 0), tf.concat([classes, classes_of(explored)], 0)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(class_loss(network(images), classes))
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables))

        # All replicas do the same; the sum of their gradients has the direction of one, and Adam knows no more of it.
        @tf.function(
            input_signature=[tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8), tf.TensorSpec([2], tf.int32)],
            autograph=False,
        )
        def update(pixels, seed):
            tf.distribute.get_strategy().run(replica, (pixels, seed))

        random = np.random.default_rng([seed, 0x5B])
        for step in range(self.updates):
            update(pixels[random.integers(0, len(pixels), _BATCH)], tf.constant([seed, step], tf.int32))
        return network, num_classes

    def settings(self):
        """See `Attack`."""
        own = {"updates": self.updates, "examples": self.examples, "width": self.width}
        return {**self.attack.settings(), **own, "attack": self.attack.name, "source": "surrogate"}


def small_network(image_shape, num_classes: int, width: int, seed: int):
    """Returns a network of one convolution, and one of stride 2 for each halving of the images down to some pixels."""
    side, layers = min(image_shape[:2]), []

    def shared():
        # A seed for each layer, and the numbers of the rest of the program stay as they are.
        return {"kernel_initializer": keras.initializers.HeUniform(seed + len(layers)), "dtype": "float32"}

    layers.append(keras.layers.Conv2D(width, 3, padding="same", activation="relu", **shared()))
    while side > _SIDE:
        width, side = min(2 * width, 128), -(-side // 2)
        layers.append(keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu", **shared()))
    layers += [keras.layers.Flatten(), keras.layers.Dense(num_classes, **shared())]
    return keras.Sequential([keras.Input(image_shape), *layers])


def _untrained(images):
    raise ValueError("A surrogate attacks only in an evaluation, which trains it first (Attack.prepared).")
