"""Which gradients are zero, wrong or useless, on a linear classifier whose gradient is known."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.losses import margin_loss, targeted_margin_loss
from robgan_tf.robustness.gradient_checks import check_gradients

COUNT, SHAPE = 50, (6, 6, 2)
WEIGHT = np.random.default_rng(0).normal(size=[72, 4]).astype(np.float32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, [COUNT, *SHAPE]).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 4, COUNT).astype(np.int32)
LOSSES = {"class_loss": (class_loss, False), "margin_loss": (margin_loss, False), "t": (targeted_margin_loss, True)}


def linear(images):
    return tf.reshape(images, [-1, 72]) @ WEIGHT


def with_gradient(change):
    """The linear classifier with another gradient, a function of the right one."""

    @tf.custom_gradient
    def passing(images):
        return tf.identity(images), change

    return lambda images: linear(passing(images))


def shares(logits, points=None, losses=LOSSES):
    checks = check_gradients(logits, losses, points or {"clean": IMAGES}, LABELS, 0.05, 20, seed=3)
    return [check.value for check in checks]


# Without a bend but at the borders between classes, which few of the short steps cross.
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 4.0])
def test_the_gradient_of_a_linear_classifier_passes_however_sure_it_is(scale):
    zero, wrong, useless = shares(lambda images: scale * linear(images))
    # The cross-entropy of a margin of 20 is 0 in float32, and its gradient is not.
    assert zero == wrong == 0 and useless <= 0.04


def test_a_gradient_that_float32_loses_is_zero():
    zero, _, _ = shares(lambda images: 1e4 * linear(images), losses={"class_loss": LOSSES["class_loss"]})
    assert zero > 0.1


@pytest.mark.parametrize(
    "change, found",
    [
        (tf.zeros_like, 0),
        (lambda gradient: gradient * np.nan, 0),
        (tf.negative, 1),
        (lambda gradient: tf.reverse(gradient, [1]), 1),
        (lambda gradient: 3 * gradient, 1),
        (lambda gradient: gradient * tf.reshape(tf.cast(tf.range(6) < 3, tf.float32), [6, 1, 1]), 1),  # of one half
    ],
    ids=["zero", "nan", "negated", "of other pixels", "of another size", "of half of the pixels"],
)
def test_a_gradient_that_is_not_the_classifiers_is_found(change, found):
    values = shares(with_gradient(change))
    assert values[found] > 0.9


def test_a_shattered_gradient_is_right_and_useless():
    zero, wrong, useless = shares(lambda images: linear(images + 1e-2 * tf.sin(1e3 * images)))
    assert zero == 0 and wrong < 0.1 and useless > 0.5


def test_an_image_counts_where_one_of_its_points_has_the_fault():
    def stops_in_the_middle(images):
        middle = tf.reduce_all(tf.abs(images) < 0.5, [1, 2, 3], keepdims=True)
        return linear(tf.where(middle, tf.stop_gradient(images), images))

    points = {"clean": IMAGES, "attacked": np.where(np.arange(COUNT)[:, None, None, None] < 10, IMAGES / 3, IMAGES)}
    assert shares(stops_in_the_middle)[0] == 0
    assert shares(stops_in_the_middle, points)[0] == 10 / COUNT
