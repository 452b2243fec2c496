"""Transfer from a surrogate breaks a classifier that shows its classes alone, and touches nothing else."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.surrogate import Surrogate
from robgan_tf.players.attacker.threat_model import L2, LInf

WEIGHT = np.random.default_rng(0).normal(size=[64, 4]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 64]) @ WEIGHT


def hard_labels(images):
    return tf.one_hot(tf.argmax(linear(images), -1), 4)


def examples_of(count, seed):
    pixels = np.random.default_rng(seed).integers(60, 196, [count, 8, 8, 1]).astype(np.uint8)
    labels = np.argmax(linear((pixels / 127.5 - 1).astype(np.float32)), -1).astype(np.int32)
    return Examples(pixels, labels)


@pytest.mark.parametrize("ball", [LInf(0.1), L2(0.6)])
def test_hard_labels_are_broken_nearly_as_often_as_the_classifier_behind_them(ball, digits):
    # Least squares on digits.
    images = np.reshape(digits.train.images / np.float32(127.5) - 1, [-1, 64])
    weight = np.linalg.lstsq(images, np.eye(10, dtype=np.float32)[digits.train.labels], rcond=None)[0]

    def linear(images):
        return tf.reshape(images, [-1, 64]) @ weight

    def hard_labels(images):
        return tf.one_hot(tf.argmax(linear(images), -1), 10) + 0 * linear(images)  # a gradient of zero

    train, test = digits.train, digits.test.take(200)
    test = test.select(AttackedClassifier(linear, None, 200)(test))
    white = AttackedClassifier(linear, PGD(ball, 20, relative_step_size=0.2), 200)(test)
    hidden = AttackedClassifier(hard_labels, PGD(ball, 20, relative_step_size=0.2), 200)(test)
    state = np.random.get_state()[1].copy()
    attack = Surrogate(ball, steps=10, targets=12, updates=200, width=16).prepared(hard_labels, train, seed=0)
    transfer = AttackedClassifier(hard_labels, attack, 200)
    stands = transfer(test)
    assert hidden.mean() == 1 and white.mean() < 0.5 and stands.mean() < white.mean() + 0.2
    assert transfer.invalid == 0 and attack.targets == 9  # as many as are wrong
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_the_same_seed_gives_the_same_surrogate():
    train, image = examples_of(200, 1), tf.zeros([1, 8, 8, 1])
    first, again, other = (
        Surrogate(LInf(0.1), updates=3, width=4).prepared(linear, train, seed).source(image) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_on_two_replicas_there_is_one_surrogate(two_replicas):
    train, test = examples_of(200, 1), examples_of(9, 2)
    with two_replicas.scope():
        attack = Surrogate(LInf(0.05), steps=5, updates=20, width=4).prepared(hard_labels, train, seed=0)
        AttackedClassifier(hard_labels, attack, 9)(test)


def test_without_a_classifier_it_says_so():
    with pytest.raises(ValueError, match="in an evaluation, which trains it first"):
        AttackedClassifier(linear, Surrogate(LInf(0.1)), 4)(examples_of(4, 0))


@pytest.mark.parametrize("setting", ["steps", "targets", "updates", "examples"])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=f"Surrogate.{setting} must be a whole number >= 1, got 0"):
        Surrogate(LInf(0.1), **{setting: 0})
