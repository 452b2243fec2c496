"""The l1 threat model and what attacks do in it, against SciPy and against a linear classifier's closed form."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.apgd import AutoPGD
from robgan_tf.players.attacker.apgd_l1 import sparse_direction
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import targeted_dlr_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.square import Square, bump
from robgan_tf.players.attacker.threat_model import L1

SHAPE, CLASSES, COUNT = (6, 7, 2), 5, 120
WEIGHT = np.random.default_rng(0).normal(size=[84, CLASSES]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 84]) @ WEIGHT


@pytest.fixture(scope="module")
def examples():
    pixels = np.random.default_rng(1).integers(60, 196, [COUNT, *SHAPE]).astype(np.uint8)
    return Examples(pixels, np.argmax(linear((pixels / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


def test_projection_by_hand():
    # The second pixel has room for 0.1 alone. A threshold of 0.2 leaves 0.5 - 0.2 + 0.1 (of 0.8 - 0.2) + 0 = 0.4.
    originals = tf.reshape([0.0, 0.9, 0.0], [1, 1, 3, 1])
    images = originals + tf.reshape([0.5, 0.8, -0.2], [1, 1, 3, 1])
    np.testing.assert_allclose(tf.reshape(L1(0.4).project(images, originals), [3]), [0.3, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.7, 2.0])
def test_projection_is_the_nearest_point_by_a_general_solver(epsilon):
    generator = np.random.default_rng(3)
    originals = np.clip(generator.uniform(-1.3, 1.3, [6, 1, 5, 1]), -1, 1).astype(np.float32)
    wild = (originals + generator.normal(scale=0.6, size=originals.shape)).astype(np.float32)
    found = L1(epsilon).project(tf.constant(wild), originals).numpy()
    for one, original, image in zip(found.reshape(6, 5), originals.reshape(6, 5), wild.reshape(6, 5)):
        # d = p - n with p, n >= 0 and their sum at most epsilon.
        solved = scipy.optimize.minimize(
            lambda z, x=original, y=image: np.sum((x + z[:5] - z[5:] - y) ** 2),
            np.zeros(10),
            jac=lambda z, x=original, y=image: 2 * np.concatenate([x + z[:5] - z[5:] - y, y - x - z[:5] + z[5:]]),
            bounds=[(0, 1 - x) for x in original] + [(0, 1 + x) for x in original],
            constraints={"type": "ineq", "fun": lambda z: epsilon - z.sum(), "jac": lambda z: -np.ones(10)},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert solved.success
        np.testing.assert_allclose(one, original + solved.x[:5] - solved.x[5:], atol=2e-4)  # the solver's
        assert np.sum((one - image) ** 2) <= solved.fun + 1e-6


def test_steps_go_along_the_largest_entries():
    gradient = tf.reshape([0.5, -2.0, 1.0, 0.1], [1, 2, 2, 1])
    half = tf.reshape(sparse_direction(gradient, tf.constant([0.5])), [4])
    np.testing.assert_allclose(half, [0, -0.5, 0.5, 0])
    np.testing.assert_allclose(tf.reshape(sparse_direction(gradient, tf.constant([0.0])), [4]), [0, -1, 0, 0])


def exactly_robust(examples, epsilon):
    """Which images hold: the pixels of the largest weights move through all of their room, until epsilon is used up."""
    images = (examples.images / 127.5 - 1).reshape(COUNT, 84)
    logits = images @ WEIGHT.astype(np.float64)
    holds = np.ones(COUNT, bool)
    for row, label in enumerate(examples.labels):
        for k in set(range(CLASSES)) - {label}:
            weight = WEIGHT[:, k] - WEIGHT[:, label]
            order = np.argsort(-np.abs(weight))
            room = np.where(weight > 0, 1 - images[row], 1 + images[row])[order]
            used = np.minimum(room, np.maximum(epsilon - np.cumsum(room) + room, 0))
            holds[row] &= logits[row, label] - logits[row, k] > np.sum(np.abs(weight[order]) * used)
    return holds


def test_targeted_auto_pgd_finds_the_worst_case_of_a_linear_classifier(examples):
    exact = exactly_robust(examples, 0.7)
    assert 0.1 < exact.mean() < 0.6
    attack = AutoPGD(L1(0.7), 60, targeted_dlr_loss, targets=4)
    found = AttackedClassifier(linear, attack, 64)(examples)
    assert not (exact & ~found).any()
    # It ends near the corner and not in it.
    assert (found & ~exact).sum() <= 2


def test_the_other_attacks_break_much_and_nothing_that_holds(examples):
    exact = exactly_robust(examples, 0.7)
    for attack, most in ((PGD(L1(0.7), 40, relative_step_size=0.1), 0.5), (Square(L1(0.7), 300), 0.75)):
        found = AttackedClassifier(linear, attack, 64)(examples)
        assert not (exact & ~found).any()
        assert (found & ~exact).sum() <= most * (~exact).sum(), attack.name


def test_bump_of_three_pixels_by_hand():
    # As in l2, with 1 / k^4: sums 1 + 1/16 in the middle, 1/16 around it, each half divided by its l1 norm.
    top = np.array([[1, 17, 1]]) / 19
    bottom = np.array([[1, 1, 1], [1, 17, 1]]) / 22
    np.testing.assert_allclose(bump(tf.constant(3), 1), np.concatenate([top, -bottom]) / 2, rtol=1e-6)  # float32
