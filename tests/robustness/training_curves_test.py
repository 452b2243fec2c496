"""The measures of a classifier while it trains, against a linear classifier by hand."""

import types

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness.training_curves import TrainingCurves

EPSILON = 0.1


def data(train, test):
    """Two classes of images of 2 x 2 gray pixels: the sum of the pixels is below or above 0, with some wrong labels."""

    def examples(count, seed):
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, [count, 2, 2, 1]).astype(np.uint8)
        labels = (images.reshape(count, -1).astype(float).mean(axis=1) > 127.5) ^ (random.random(count) < 0.2)
        return Examples(images, labels.astype(np.int32))

    return types.SimpleNamespace(train=examples(train, 0), test=examples(test, 1))


def logits_with(weight):
    def logits(images):
        total = weight * tf.reduce_sum(images, axis=[1, 2, 3])
        return tf.stack([-total, total], axis=1)

    return logits


def sums_and_signs(examples):
    pixels = examples.images.reshape(len(examples), -1).astype(np.float64) / 127.5 - 1
    return pixels, np.where(examples.labels == 1, 1.0, -1.0)


def test_accuracy_and_llv_of_a_linear_classifier_are_the_closed_form():
    """Margin of an image: sign(label) sum(x). Under attack each pixel moves by epsilon against it, within the range.

    logits (-w s, w s) have the cross-entropy log(1 + exp(-2 w t)) with t = sign s, whose gradient in each of the four
    pixels is 2 w / (1 + exp(2 w t)); its norm is twice that.
    """
    some = data(40, 30)
    attacker = Attacker(LInf(epsilon=EPSILON), steps=10, relative_step_size=0.25, random_start=False)
    found = TrainingCurves(examples=100, batch_size=8)(logits_with(0.5), some, attacker)()
    for split in ("train", "test"):
        pixels, signs = sums_and_signs(getattr(some, split))
        attacked = np.clip(pixels - EPSILON * signs[:, None], -1, 1).sum(axis=1) * signs
        margins = pixels.sum(axis=1) * signs
        assert found[f"classifier_{split}_clean_accuracy"] == pytest.approx(np.mean(margins > 0))
        assert found[f"classifier_{split}_attacked_accuracy"] == pytest.approx(np.mean(attacked > 0))
        expected = np.mean(2 * 1.0 / (1 + np.exp(margins)))
        assert found[f"classifier_{split}_lipschitz"] == pytest.approx(expected, rel=1e-5)


def test_each_call_measures_the_weights_as_they_are_then():
    weight = tf.Variable(1.0)
    some = data(20, 20)
    measure = TrainingCurves(examples=20)(logits_with(weight), some, None)
    before = measure()
    weight.assign(-1.0)
    after = measure()
    assert set(before) == {f"classifier_{a}_{b}" for a in ("train", "test") for b in ("clean_accuracy", "lipschitz")}
    for split in ("train", "test"):
        name = f"classifier_{split}_clean_accuracy"
        assert before[name] > 0.5 and after[name] == pytest.approx(1 - before[name])


def test_numbers_out_of_their_range_are_refused():
    with pytest.raises(ValueError, match="TrainingCurves.every must be a whole number >= 1, got 0"):
        TrainingCurves(every=0)
