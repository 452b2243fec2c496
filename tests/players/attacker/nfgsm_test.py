"""N-FGSM against a computation by hand, and what it promises in training and in an evaluation."""

import dataclasses

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.attacked_classifier import is_within
from robgan_tf.players.attacker.nfgsm import NFGSM
from robgan_tf.players.attacker.threat_model import L2, LInf

SEED, LABELS = tf.constant([3, 4]), tf.constant([0, 2, 1, 1])
IMAGES = np.random.default_rng(0).uniform(-1, 1, [4, 5, 5, 2]).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=[50, 3]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 50]) @ WEIGHT


def loss(images):
    return class_loss(linear(images), LABELS)


@pytest.mark.parametrize("ball", [LInf(0.1), L2(0.5)], ids=lambda ball: ball.norm)
def test_it_is_one_step_from_noise_without_a_projection(ball):
    attack = NFGSM(ball, noise=2.0, relative_step_size=1.25)
    noise = dataclasses.replace(ball, epsilon=2 * ball.epsilon).random_perturbation(IMAGES.shape, SEED)
    start = np.clip(IMAGES + noise, -1, 1)
    # d CE / dx = W (softmax - one-hot)
    probabilities = scipy.special.softmax(start.reshape(4, -1) @ WEIGHT, axis=1)
    gradient = ((probabilities - np.eye(3)[LABELS]) @ WEIGHT.T).reshape(IMAGES.shape)
    length = np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True))
    direction = np.sign(gradient) if ball.norm == "linf" else gradient / length
    expected = np.clip(start + 1.25 * ball.epsilon * direction, -1, 1)
    found = attack(tf.constant(IMAGES), loss, SEED).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not is_within(ball, ball.epsilon, IMAGES, found).any()
    assert is_within(ball, 3.25 * ball.epsilon, IMAGES, found).all()


def test_in_an_evaluation_it_stays_in_the_ball_of_any_radius():
    attack = NFGSM(LInf(0.1))
    for epsilon in (0.1, 0.02):
        found = attack.with_epsilon(tf.constant(epsilon)).fool(linear, tf.constant(IMAGES), LABELS, SEED).numpy()
        assert is_within(LInf(epsilon), epsilon, IMAGES, found).all()
        assert (loss(found).numpy() > loss(IMAGES).numpy()).all()


def test_it_takes_a_single_step_and_needs_noise_and_a_seed():
    attack = NFGSM(LInf(0.1))
    assert attack.one_step and attack.random_start
    attack.check_training()
    assert str(attack).startswith(
        "a step of 0.1 from noise within 0.2, not projected, around the linf ball, epsilon 0.1"
    )
    assert attack.describe() == {
        **{"name": "n_fgsm", "label": "N-FGSM on class_loss, noise 2 epsilon", "norm": "linf"},
        **{"noise": 2.0, "relative_step_size": 1.0, "loss": "class_loss", "targets": 0, "restarts": 1},
    }
    with pytest.raises(ValueError, match="NFGSM.noise must be a number > 0, got 0; for no noise take @Attacker"):
        NFGSM(LInf(0.1), noise=0)
    with pytest.raises(ValueError, match="needs a seed"):
        attack(tf.constant(IMAGES), loss)
