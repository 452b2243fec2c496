"""What answers alone tell of a classifier."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier, judge
from robgan_tf.players.attacker.inputs import check_answers as check_finite
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness.answer_checks import check_answers, check_moved, check_training_images

WEIGHT = np.random.default_rng(0).normal(size=[64, 10]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 64]) @ WEIGHT


def failed(logits, digits, is_random=False):
    clean, noise = (AttackedClassifier(logits, attack, 50) for attack in (None, Noise(LInf(0.2))))
    checks = list(check_answers(clean, [noise, noise], digits.test.take(100), is_random))
    return [check.name for check in checks if check.status == "fail"], checks


def test_a_deterministic_classifier_fails_nothing(digits):
    assert failed(linear, digits)[0] == []


def test_a_constant_classifier_is_called_constant_and_nothing_else(digits):
    names, checks = failed(lambda images: 0 * linear(images) + tf.range(10.0), digits)
    assert names == ["Answers differ between images"] and len(checks) == 1 and "is constant" in checks[0].message


def test_logits_that_stand_still_are_found(digits):
    def hard_labels(images):
        return 10 * tf.one_hot(tf.argmax(linear(images), -1), 10)

    assert failed(hard_labels, digits)[0] == ["Answers change within the ball"]


def test_a_classifier_that_is_random_on_purpose_is_no_failure(digits):
    def noisy(images):
        return linear(images + tf.random.normal(tf.shape(images)))

    assert "Two clean passes are identical" in failed(noisy, digits)[0]
    names, checks = failed(noisy, digits, is_random=True)
    assert names == [] and "as is meant" in checks[1].message


def test_minus_infinity_for_an_unused_class_is_an_answer(digits):
    def without_nine(images):
        return tf.where(tf.range(10) == 9, -np.inf, linear(images))

    check_finite(AttackedClassifier(without_nine, None, 50), digits.test.take(100))
    assert failed(without_nine, digits)[0] == []
    answers = np.array([[1.0, 0.0, -np.inf], [1.0, 0.0, np.nan], [1.0, 0.0, np.inf], [-np.inf, 0.0, 0.0]], np.float32)
    assert judge(answers, np.zeros(4, np.int32))[1].tolist() == [True, False, False, False]


def test_images_that_are_known_by_heart_are_not_known_when_moved(digits):
    test = digits.test.take(100)
    stored = tf.constant(test.images / np.float32(127.5) - 1)

    def by_heart(images):
        same = tf.reduce_max(tf.abs(images[:, None] - stored), [2, 3, 4]) < 0.1
        return tf.cast(same, tf.float32) @ tf.one_hot(test.labels, 10) + 0.01 * linear(images)

    assert check_moved(AttackedClassifier(by_heart, None, 50), test).status == "fail"


def block(clean, attacked, count=1000):
    def point(epsilon, accuracy):
        # Wilson's interval of some thousand images is about that of the normal distribution.
        half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / count)
        return {"epsilon": epsilon, "accuracy": accuracy, "interval": [accuracy - half, accuracy + half]}

    return {"curve": [point(0.0, clean), point(0.2, attacked)], "examples": count}


@pytest.mark.parametrize(
    "test, train, status",
    [
        ((0.9, 0.5), (0.95, 0.6), "pass"),
        ((0.9, 0.5), (0.89, 0.48), "pass"),
        ((0.9, 0.57), (0.89, 0.5), "warn"),
        ((0.9, 0.7), (0.89, 0.5), "fail"),
        ((1.0, 0.5), (0.1, 0.5), "fail"),
    ],
)
def test_accuracy_far_above_that_on_training_images_fails(test, train, status):
    assert check_training_images(block(*test), block(*train), 0.2).status == status
