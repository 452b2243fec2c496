"""Distances against closed forms, SciPy and direct computation."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance

from robgan_tf.generation.distances import (
    _kernel_distance_by_blocks,
    _kernel_distance_by_tfgan,
    _tfgan_is_usable,
    frechet_distance,
    kernel_distance,
    precision_and_recall,
    within_class_distances,
)


def by_scipy(mean_1, covariance_1, mean_2, covariance_2):
    root = scipy.linalg.sqrtm(covariance_1 @ covariance_2).real
    return np.sum((mean_1 - mean_2) ** 2) + np.trace(covariance_1 + covariance_2 - 2 * root)


def moments(values):
    return values.mean(axis=0), np.cov(values, rowvar=False)


def test_frechet_distance_of_diagonal_gaussians_is_that_of_the_closed_form():
    # Commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2 = (9 + 16) + (1 - 2)^2 + (3 - 5)^2 = 30.
    found = frechet_distance(np.zeros(2), np.diag([1.0, 9.0]), np.array([3.0, 4.0]), np.diag([4.0, 25.0]))
    assert found == pytest.approx(30, rel=1e-12)


@pytest.mark.parametrize("dimension, count", [(3, 50), (128, 2000), (200, 1000)])
def test_frechet_distance_equals_scipys(dimension, count):
    random = np.random.default_rng(0)
    mixing = random.normal(size=[dimension, dimension])
    one = np.maximum(random.normal(size=[count, dimension]) @ mixing, 0)
    other = np.maximum(random.normal(0.05, 1.1, [count, dimension]) @ mixing, 0)
    assert frechet_distance(*moments(one), *moments(other)) == pytest.approx(
        by_scipy(*moments(one), *moments(other)), rel=1e-8
    )


def test_frechet_distance_with_dead_features_is_finite_and_that_of_the_others():
    # As many features of a trained network: always 0.
    random = np.random.default_rng(0)
    one, other = random.normal(size=[60, 4]), random.normal(1, 2, size=[60, 4])
    dead = [np.concatenate([values, np.zeros([60, 3])], axis=1) for values in (one, other)]
    assert frechet_distance(*moments(dead[0]), *moments(dead[1])) == pytest.approx(
        by_scipy(*moments(one), *moments(other)), rel=1e-6
    )
    assert frechet_distance(*moments(dead[0]), *moments(dead[0])) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_equals_tf_gans_within_its_float32(tfgan):
    random = np.random.default_rng(0)
    one = random.normal(size=[500, 16]).astype(np.float32)
    other = random.normal(0.3, 1.2, [500, 16]).astype(np.float32)
    expected = float(tfgan.eval.frechet_classifier_distance_from_activations(one, other))
    assert frechet_distance(*moments(one), *moments(other)) == pytest.approx(expected, rel=1e-3)


def direct_kernel_distance(one, other):
    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    count, others = len(one), len(other)
    within = (kernel(one, one).sum() - np.trace(kernel(one, one))) / (count * (count - 1))
    within_other = (kernel(other, other).sum() - np.trace(kernel(other, other))) / (others * (others - 1))
    return within + within_other - 2 * kernel(one, other).mean()


def test_kernel_distance_of_one_block_is_the_unbiased_estimate():
    random = np.random.default_rng(0)
    one, other = random.normal(size=[40, 5]), random.normal(0.5, 1, [40, 5])
    distance, error = kernel_distance(one, other)
    assert distance == pytest.approx(direct_kernel_distance(one, other), rel=1e-10)
    assert error is None


@pytest.mark.skipif(not _tfgan_is_usable(), reason="tensorflow-gan runs on TensorFlow 2.15 alone")
@pytest.mark.parametrize("sizes, block_size", [((40, 40), 100), ((43, 31), 10), ((31, 43), 7)])
def test_both_ways_to_the_kernel_distance_are_equal(sizes, block_size):
    random = np.random.default_rng(4)
    one, other = (random.normal(size=[size, 5]) for size in sizes)
    ours, theirs = (way(one, other, block_size) for way in (_kernel_distance_by_blocks, _kernel_distance_by_tfgan))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)  # float64 both; NaN for the error of a single block


def test_kernel_distance_of_blocks_is_their_mean_with_its_standard_error():
    random = np.random.default_rng(0)
    one, other = random.normal(size=[40, 5]), random.normal(0.5, 1, [40, 5])
    blocks = [direct_kernel_distance(one[i : i + 10], other[i : i + 10]) for i in range(0, 40, 10)]
    distance, error = kernel_distance(one, other, block_size=10)
    assert distance == pytest.approx(np.mean(blocks), rel=1e-10)
    assert error == pytest.approx(np.std(blocks, ddof=1) / 2, rel=1e-10)


def test_precision_and_recall_of_points_on_a_line():
    # k = 1. Balls of the real ones: around 0 and 1 of radius 1, around 10 and 12 of 2: within [-1, 2] or [8, 14].
    real = np.array([[0.0], [1.0], [10.0], [12.0]])
    # Those of the generated: around 1.5 (radius 2: to 3.5), 3.5 (2: to 1.5), 20 (1: to 21), 21 (1).
    # Within real balls: 1.5 alone of four. Within generated balls, [-.5, 3.5], [1.5, 5.5], [19, 22]: 0 and 1.
    generated = np.array([[1.5], [3.5], [20.0], [21.0]])
    assert precision_and_recall(real, generated, nearest=1) == (0.25, 0.5)


def test_precision_and_recall_of_equal_sets_are_one_and_of_far_ones_zero():
    points = np.random.default_rng(0).normal(size=[1300, 3]).astype(np.float32)  # more than a piece of rows
    assert precision_and_recall(points, points.copy()) == (1, 1)
    assert precision_and_recall(points, points + 100) == (0, 0)


def test_collapsed_images_have_precision_without_recall():
    random = np.random.default_rng(0)
    real = random.normal(size=[200, 2])
    collapsed = np.tile(real[:1], [200, 1]) + 1e-6 * random.normal(size=[200, 2])
    precision, recall = precision_and_recall(real, collapsed)
    assert precision == 1 and recall < 0.02


def test_too_few_points_for_their_neighbours_are_refused():
    with pytest.raises(ValueError, match="more than 3 generated samples, got 3"):
        precision_and_recall(np.zeros([9, 2]), np.zeros([3, 2]))


def test_within_class_distances_are_the_mean_over_pairs():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=[60, 4]), np.repeat([0, 2, 3], [30, 29, 1])
    found = within_class_distances(features, labels, 4)
    for label in (0, 2):
        expected = scipy.spatial.distance.pdist(features[labels == label]).mean()
        assert found[label] == pytest.approx(expected, rel=1e-10)
    assert np.isnan(found[[1, 3]]).all()
