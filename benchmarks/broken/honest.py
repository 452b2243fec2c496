"""Classifiers of all kinds that hide nothing: no check may fail of them."""

from __future__ import annotations

import tensorflow as tf
from broken.networks import CLASSES, convolutional, linear, plain, robust, smooth, trained, untrained, usual_keras

from robgan_tf.keras2 import keras


def _new(network):
    def make():
        keras.utils.set_random_seed(0)
        return trained(network())

    return make


def unused_class():
    """A network that has no weights for one of the classes, which gets minus infinity: here 9, of which it is wrong."""
    mask = tf.one_hot([CLASSES - 1], CLASSES, on_value=True, off_value=False, dtype=tf.bool)
    return lambda images: tf.where(mask, -float("inf"), robust()(images))


def mean_of_shifts():
    """Averages over the image and its neighbours by a pixel, the same each time."""
    return lambda images: tf.add_n([robust()(tf.roll(images, by, 2)) for by in (-1, 0, 1)]) / 3


def small_logits():
    """Logits a hundred times as small as usual, as with a temperature."""
    return lambda images: robust()(images) / 100


MODELS = {
    "adversarially trained": robust,
    "plainly trained": plain,
    "linear": _new(linear),
    "at chance": untrained,
    "usual Keras layers": _new(usual_keras),
    "tanh": _new(smooth),
    "minus infinity for a class": unused_class,
    "mean over shifts": mean_of_shifts,
    "small logits": small_logits,
    "another plainly trained": lambda: trained(convolutional(), updates=1500, seed=3),
}
