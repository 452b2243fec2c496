"""The local Lipschitz value, against the gradient of a linear classifier by hand."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.robustness.local_lipschitz import LocalLipschitz

WEIGHTS = np.random.default_rng(1).normal(size=[4 * 3 * 2, 5]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, len(WEIGHTS)]) @ WEIGHTS


def lipschitz(logits=linear, batch_size=8):
    return LocalLipschitz(logits, (4, 3, 2), batch_size)


def some_examples(count):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, [count, 4, 3, 2]).astype(np.uint8)
    return Examples(images, random.integers(0, 5, count).astype(np.int32))


@pytest.mark.parametrize("count", [1, 8, 21])
def test_llv_of_a_linear_classifier_is_the_closed_form(count):
    """logits = x W: the cross-entropy's gradient in x is W (softmax(x W) - onehot(label))."""
    examples = some_examples(count)
    pixels = examples.images.reshape(count, -1).astype(np.float64) / 127.5 - 1
    exponentials = np.exp(pixels @ WEIGHTS)
    scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    expected = np.linalg.norm((scores - np.eye(5)[examples.labels]) @ WEIGHTS.T, axis=1)
    values = lipschitz()(examples)
    assert values.dtype == np.float32
    # float32 in another order; absolute, because 1 - p loses digits where p, the label's probability, is nearly 1.
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_llv_does_not_depend_on_the_batch_size_and_works_within_a_strategy(two_replicas):
    examples = some_examples(21)
    expected = lipschitz(batch_size=100)(examples)
    with two_replicas.scope():
        np.testing.assert_allclose(lipschitz(batch_size=4)(examples), expected, rtol=1e-5, atol=1e-6)


def test_no_examples_have_no_values():
    assert lipschitz()(some_examples(3).select(np.zeros(3, bool))).shape == (0,)


def test_a_classifier_without_gradient_is_refused():
    with pytest.raises(ValueError, match="none reaches the images"):
        lipschitz(lambda images: linear(tf.stop_gradient(images)))(some_examples(3))


def test_batches_of_any_size_share_one_graph():
    traced = []

    def logits(images):
        traced.append(images.shape)
        return linear(images)

    values = lipschitz(logits)
    for count in (21, 8, 3):
        values(some_examples(count))
    assert traced == [(None, 4, 3, 2)]
