"""Streams against all at once, and the classifier score against a computation by hand."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.generation.extractors import Extractor
from robgan_tf.generation.statistics import ClassifierScore, Moments, gather

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, [60, 4, 4, 1], np.uint8)
LABELS = (np.arange(60) % 3).astype(np.int32)
WEIGHT = RANDOM.normal(size=[16, 3]).astype(np.float32)


@pytest.fixture
def linear():
    """An extractor whose features are three projections of the pixels, and whose logits are these."""

    def network(images):
        features = tf.reshape(images, [-1, 16]) @ WEIGHT
        return features, features

    return Extractor(network, "linear", "0" * 64, (4, 4, 1))


def features_of(images):
    return (images.reshape(-1, 16) / np.float64(127.5) - 1) @ WEIGHT


def pieces(*sizes):
    ends = np.cumsum([0, *sizes])
    return [(IMAGES[begin:end], LABELS[begin:end]) for begin, end in zip(ends, ends[1:])]


def test_moments_of_a_stream_are_those_of_all_at_once():
    # A mean that is large beside the deviation: sums of squares in float64 would lose half of the digits.
    values = RANDOM.normal(1e6, 1, [1000, 8])
    moments = Moments(8)
    for part in np.split(values, [1, 10, 10, 500]):
        moments.add(part)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False), atol=1e-8)


def test_classifier_score_by_hand():
    # Two images, sure of two different classes: KL(one-hot | uniform) = log 2, so the score is 2.
    score = ClassifierScore(2, 1)
    score.add(np.array([[50.0, 0.0]]))
    score.add(np.array([[0.0, 50.0]]))
    assert score.result() == pytest.approx((2, 0), abs=1e-12)
    # No image says anything: the score is 1.
    score = ClassifierScore(3, 1)
    score.add(np.zeros([3, 5]))
    assert score.result() == pytest.approx((1, 0), abs=1e-12)


def test_classifier_score_equals_tf_gans_whole_and_by_parts(tfgan):
    logits = RANDOM.normal(0, 3, [90, 7]).astype(np.float32)
    whole, parts = ClassifierScore(90, 1), ClassifierScore(90, 3)
    for piece in np.split(logits, [7, 50]):
        whole.add(piece)
        parts.add(piece)
    assert whole.result()[0] == pytest.approx(float(tfgan.eval.classifier_score_from_logits(logits)), rel=1e-5)
    scores = [float(tfgan.eval.classifier_score_from_logits(part)) for part in np.split(logits, 3)]
    assert parts.result() == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-4)


def test_a_stream_gathers_what_one_batch_does(linear):
    one = gather(linear, pieces(60), 60, 3, kept=20)
    many = gather(linear, pieces(7, 30, 23), 60, 3, kept=20)
    expected = features_of(IMAGES)
    np.testing.assert_allclose(one.mean, expected.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one.covariance, np.cov(expected, rowvar=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(many.covariance, one.covariance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(many.score, one.score, rtol=1e-5)
    np.testing.assert_array_equal(many.labels, one.labels)
    np.testing.assert_allclose(many.features, one.features, rtol=1e-5, atol=1e-5)
    assert many.right == one.right == np.mean(expected.argmax(axis=1) == LABELS)


def test_moments_of_each_class_are_those_of_its_images(linear):
    found = gather(linear, pieces(40, 20), 60, 3)
    assert list(found.class_counts) == [20, 20, 20]
    for label in range(3):
        expected = features_of(IMAGES[LABELS == label])
        np.testing.assert_allclose(found.class_means[label], expected.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.class_covariances[label], np.cov(expected, rowvar=False), rtol=1e-3, atol=1e-4)


def test_what_comes_after_the_count_is_left_out_and_too_few_are_refused(linear):
    assert gather(linear, pieces(40, 20), 50, 3).count == 50
    with pytest.raises(ValueError, match="There are 60 images to measure, not 61"):
        gather(linear, pieces(60), 61, 3)


def test_fewer_images_of_a_class_than_features_give_no_moments_of_classes(linear):
    found = gather(linear, pieces(9), 9, 3)
    assert found.class_means.shape == (0, 3) and found.class_covariances.shape == (0, 3, 3)


@pytest.mark.slow
def test_50_000_images_of_2048_features_take_less_than_their_features_would():
    """The features alone would be 410 MB. Measured is what NumPy holds at most; a batch of tensors comes on top."""
    weight = tf.constant(RANDOM.normal(size=[16, 2048]), tf.float32)

    def network(images):
        features = tf.nn.relu(tf.reshape(images, [-1, 16]) @ weight)
        return features, features[:, :10]

    def batches():
        random = np.random.default_rng(0)
        for _ in range(100):
            yield random.integers(0, 256, [500, 4, 4, 1], np.uint8), random.integers(0, 10, 500).astype(np.int32)

    extractor = Extractor(network, "inception's size", "0" * 64, (4, 4, 1))
    tracemalloc.start()
    try:
        found = gather(extractor, batches(), 50_000, 10, kept=5000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.count == 50_000 and found.features.shape == (5000, 2048)
    assert peak < 50_000 * 2048 * 4
    print(f"peak {peak / 2**20:.0f} MiB")
