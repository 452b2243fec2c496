"""Accuracy on validation images, under the training's own attack too where that takes a single step."""

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.nfgsm import NFGSM
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness.validation import validation_accuracies

PIXELS = np.random.default_rng(0).integers(90, 166, [60, 4, 4, 1]).astype(np.uint8)


def brighter(images):
    """The class is whether an image is brighter than grey; attacks of any number of steps move it by epsilon."""
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    return tf.stack([-mean, mean], axis=1)


def test_the_one_step_of_the_training_is_measured_beside_the_attack_of_the_validation():
    means = (PIXELS / 127.5 - 1).mean(axis=(1, 2, 3))
    examples = Examples(PIXELS, (means > 0).astype(np.int32))
    pgd = PGD(LInf(0.05), 3, relative_step_size=0.5)

    def measure(training_attacker, validation_attacker=pgd):
        return validation_accuracies(brighter, validation_attacker, examples, 32, 0, training_attacker)()

    found = measure(NFGSM(LInf(0.05)))
    expected = (np.abs(means) > 0.05).mean()
    assert 0.1 < expected < 0.9
    assert found["validation_accuracy"] == expected and found["validation_clean_accuracy"] == 1.0
    assert found["validation_one_step_accuracy"] >= expected
    fgsm = PGD(LInf(0.05), 1, relative_step_size=1.0)
    assert measure(fgsm)["validation_one_step_accuracy"] == expected
    for several_or_none in (pgd, None):
        assert set(measure(several_or_none)) == {"validation_accuracy", "validation_clean_accuracy"}
    assert set(measure(fgsm, None)) == {"validation_accuracy", "validation_clean_accuracy"}
