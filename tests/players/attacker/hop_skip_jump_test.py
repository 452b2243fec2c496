"""HopSkipJump and Square on classifiers of which only the labels can be seen."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attack import is_wrong
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.hop_skip_jump import HopSkipJump
from robgan_tf.players.attacker.judge import Judge, Score
from robgan_tf.players.attacker.square import Square
from robgan_tf.players.attacker.threat_model import L1, L2, LInf

COUNT, CLASSES, PIXELS = 24, 3, 16
WEIGHT = np.random.default_rng(0).normal(size=[PIXELS, CLASSES]).astype(np.float32)


def hard(images):
    """One-hot answers: no gradient, and plateaus everywhere."""
    return tf.one_hot(tf.argmax(tf.reshape(images, [-1, PIXELS]) @ WEIGHT, axis=-1), CLASSES)


@pytest.fixture(scope="module")
def examples():
    pixels = np.random.default_rng(1).integers(60, 196, [COUNT, 4, 4, 1]).astype(np.uint8)
    return Examples(pixels, np.argmax(hard((pixels / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


def exact_distances(examples, dual):
    """To the nearest boundary of a linear classifier: the margin over the dual norm."""
    logits = (examples.images / 127.5 - 1).reshape(COUNT, PIXELS) @ WEIGHT
    distances = np.full([COUNT, CLASSES], np.inf)
    for row, label in enumerate(examples.labels):
        for k in set(range(CLASSES)) - {label}:
            norm = np.linalg.norm(WEIGHT[:, label] - WEIGHT[:, k], ord=dual)
            distances[row, k] = (logits[row, label] - logits[row, k]) / norm
    return distances.min(axis=1)


@pytest.mark.parametrize("norm, dual, excess", [(L2, 2, 1.1), (LInf, 1, 1.3)])
def test_hop_skip_jump_comes_near_the_boundary_by_labels_alone(examples, norm, dual, excess):
    images = tf.constant((examples.images / 127.5 - 1).astype(np.float32))
    judge = Judge(
        lambda images, labels: Score(0.0 * images[:, 0, 0, 0], is_wrong(hard(images), labels)), [examples.labels]
    )
    attack = HopSkipJump(norm(0.0), steps=15, queries=40)
    found = tf.function(attack.nearest)(images, judge, tf.constant([1, 2])).numpy()
    assert (np.argmax(hard(found), axis=-1) != examples.labels).all()
    exact = exact_distances(examples, dual)
    ratios = norm(1.0).size(found - images).numpy() / exact
    # Nothing is nearer than the boundary, and the walk had come within 3 (l2) and 15 % (l-inf) of it for most.
    assert ratios.min() > 0.999 and np.median(ratios) < excess


def test_it_breaks_what_gradients_cannot_and_never_asks_for_one(examples):
    @tf.custom_gradient
    def guarded(images):
        def gradient(upstream):
            raise AssertionError("a decision-based attack asked for a gradient")

        return hard(images), gradient

    ball = L2(1.2 * float(np.median(exact_distances(examples, 2))))
    attacked = AttackedClassifier(guarded, HopSkipJump(ball, 20, 40), COUNT)
    found = attacked(examples)
    assert not attacked.invalid
    # Some hold in truth; of those well within the ball a few may have ended at the boundary of a class farther away.
    exact = exact_distances(examples, 2)
    assert found[exact > ball.epsilon].all() and found[exact < ball.epsilon / 1.1].mean() < 0.15


def test_square_moves_along_the_plateaus_of_hard_labels(examples):
    ball = LInf(2.5 * float(np.median(exact_distances(examples, 1))))
    within = exact_distances(examples, 1) < ball.epsilon / 2
    found = AttackedClassifier(hard, Square(ball, 300), COUNT)(examples)
    assert within.sum() > 8 and found[within].mean() < 0.2


def test_images_that_no_start_fools_are_given_up(examples):
    def constant(images):
        return tf.one_hot(tf.zeros(tf.shape(images)[0], tf.int32), CLASSES)

    zeros = Examples(examples.images, np.zeros(COUNT, np.int32))
    attacked = AttackedClassifier(constant, HopSkipJump(LInf(0.1), 3, 5, tries=4), COUNT)
    assert attacked(zeros).all() and not attacked.invalid


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: HopSkipJump(L1(1.0)), r"knows the threat models @LInf\(\) and @L2\(\)"),
        (lambda: HopSkipJump(L2(1.0), steps=0), "HopSkipJump.steps must be a whole number >= 1, got 0"),
        (lambda: HopSkipJump(L2(1.0), tries=0), "HopSkipJump.tries"),
        (lambda: HopSkipJump(L2(1.0)).check_training(), "take @Attacker"),
    ],
)
def test_what_it_can_not_do_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
