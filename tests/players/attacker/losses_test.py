import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.losses import class_loss
from robgan_tf.players.attacker import losses as attack_losses

LABELS = np.array([0, 2, 1])
LOGITS = tf.constant(np.random.default_rng(0).normal(size=[3, 4], scale=3), tf.float32)


def assert_equal(found, expected):
    """Equal but for float32."""
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_margin_and_dlr_by_hand():
    logits = tf.constant([[1.0, 5.0, 2.0, 4.0], [7.0, 3.0, 1.0, 2.0]])
    labels, targets = np.array([1, 2]), np.array([2, 1])
    # Image 0, right: sorted 5, 4, 2, 1. Image 1, wrong: sorted 7, 3, 2, 1.
    np.testing.assert_array_equal(attack_losses.margin_loss(logits, labels), [4 - 5, 7 - 1])
    np.testing.assert_array_equal(attack_losses.targeted_margin_loss(logits, labels, targets), [2 - 5, 3 - 1])
    assert_equal(attack_losses.dlr_loss(logits, labels), [-1 / (5 - 2), 6 / (7 - 2)])
    assert_equal(attack_losses.targeted_dlr_loss(logits, labels, targets), [-3 / (5 - 1.5), 2 / (7 - 1.5)])


def test_dlr_does_not_change_with_scale_and_shift_of_the_logits_and_the_margin_scales():
    # Powers of two: exact.
    logits, targets = LOGITS, (LABELS + 1) % 4
    scaled = 1024 * logits
    np.testing.assert_array_equal(attack_losses.dlr_loss(scaled, LABELS), attack_losses.dlr_loss(logits, LABELS))
    np.testing.assert_array_equal(
        attack_losses.margin_loss(scaled, LABELS), 1024 * attack_losses.margin_loss(logits, LABELS)
    )
    targeted = attack_losses.targeted_dlr_loss
    np.testing.assert_array_equal(targeted(scaled, LABELS, targets), targeted(logits, LABELS, targets))
    assert_equal(attack_losses.dlr_loss(logits + 8, LABELS), attack_losses.dlr_loss(logits, LABELS))


def test_margin_has_a_gradient_where_the_cross_entropy_has_none():
    logits = tf.constant([[1e4, 0.0, -1e4, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        entropy, margin = class_loss(logits, [0]), attack_losses.margin_loss(logits, [0])
    np.testing.assert_array_equal(tape.gradient(entropy, logits), np.zeros([1, 4]))
    gradient = tape.gradient(margin, logits).numpy()
    assert gradient[0, 0] == -1 and gradient[0, [1, 3]].sum() == 1


def test_equal_logits_are_no_division_by_zero():
    equal = tf.ones([1, 4])
    np.testing.assert_array_equal(attack_losses.dlr_loss(equal, [0]), [0])
    np.testing.assert_array_equal(attack_losses.targeted_dlr_loss(equal, [0], [1]), [0])


def test_where_the_largest_logits_are_equal_dlr_is_the_margin_with_its_gradient():
    # Three at 5, the right class 3 at 1: z_(1) - z_(3) = 0, the margin is 4. All four at 5: targeted too.
    logits = tf.constant([[5.0, 5.0, 5.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = attack_losses.dlr_loss(logits, [3])
    np.testing.assert_array_equal(loss, [4])
    assert tape.gradient(loss, logits)[0, 3] == -1
    equal = tf.fill([1, 4], 5.0)
    with tf.GradientTape() as tape:
        tape.watch(equal)
        loss = attack_losses.targeted_dlr_loss(equal, [3], [1])
    np.testing.assert_array_equal(loss, [0])
    np.testing.assert_array_equal(tape.gradient(loss, equal), [[0, 1, 0, -1]])


def test_dlr_needs_more_classes_than_it_looks_at():
    with pytest.raises(ValueError, match="dlr_loss needs 3 classes, there are 2: take @margin_loss"):
        attack_losses.dlr_loss(tf.zeros([1, 2]), [0])
    with pytest.raises(ValueError, match="needs 4 classes, there are 3: take @targeted_margin_loss"):
        attack_losses.targeted_dlr_loss(tf.zeros([1, 3]), [0], [1])


def test_targets_are_the_wrong_classes_in_the_order_of_their_logits_and_come_again():
    logits, labels = tf.constant([[1.0, 5.0, 2.0, 4.0], [7.0, 3.0, 1.0, 2.0]]), np.array([1, 2])
    found = [attack_losses.likely_wrong_class(logits, labels, rank).numpy().tolist() for rank in range(4)]
    assert found == [[3, 0], [2, 1], [0, 3], [3, 0]]
