"""Randomised smoothing against the published algorithms, by other routes through SciPy."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.robustness.evaluation import RobustnessEvaluation
from robgan_tf.robustness.smoothing import ABSTAIN, RandomizedSmoothing, certify

COUNT = 30


@pytest.fixture(scope="module")
def examples():
    """Grey images of three levels, so that what a linear classifier does under noise is known exactly."""
    levels = np.repeat([100, 120, 140], COUNT // 3)
    pixels = np.broadcast_to(levels[:, None, None, None], [COUNT, 4, 4, 1]).astype(np.uint8)
    return Examples(pixels, (levels > 127).astype(np.int32))


def bright(images):
    """Class 1 where the mean is above 0: its distance from the boundary is |mean| sqrt(16) in l2."""
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    return tf.stack([-mean, mean, tf.fill(tf.shape(mean), -100.0)], axis=-1)


@pytest.mark.parametrize(
    "hits, draws, alpha", [(100, 100, 0.001), (990, 1000, 0.001), (60, 100, 0.05), (55, 100, 0.001)]
)
def test_radius_is_that_of_the_paper(hits, draws, alpha):
    counts = np.array([[draws - hits, hits, 0]])
    classes, radii = certify(np.array([[1, 9, 0]]), counts, sigma=0.5, alpha=alpha)
    # Clopper & Pearson: the share at which so many hits or more have probability alpha, by bisection of the binomial.
    low, high = 0.0, hits / draws
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if scipy.stats.binom.sf(hits - 1, draws, middle) < alpha else (low, middle)
    if low > 0.5:
        assert classes[0] == 1 and radii[0] == pytest.approx(0.5 * scipy.stats.norm.ppf(low), rel=1e-6)
    else:
        assert classes[0] == ABSTAIN and radii[0] == 0


def test_the_paper_says_what_a_hundred_thousand_equal_draws_give():
    # Section 3.2.2: with all n = 100,000 draws alike and alpha = 0.001 the radius is about 3.8 sigma.
    _, radii = certify(np.array([[100, 0]]), np.array([[100_000, 0]]), sigma=1.0, alpha=0.001)
    assert radii[0] == pytest.approx(3.81, abs=0.01)


def test_the_class_comes_from_the_first_draws_alone():
    classes, radii = certify(np.array([[5, 95], [95, 5]]), np.array([[1000, 0], [1000, 0]]), 0.5, 0.001)
    np.testing.assert_array_equal(classes, [ABSTAIN, 0])
    assert radii[0] == 0 < radii[1]


def test_counts_are_those_of_a_linear_classifier_under_noise(examples):
    smoothing = RandomizedSmoothing(sigma=0.5, draws=400, first_draws=50)
    first, counts = smoothing.counts(bright, examples, 8, seed=3)
    assert first.shape == counts.shape == (COUNT, 3)
    assert (first.sum(1) == 50).all() and (counts.sum(1) == 400).all() and (counts[:, 2] == 0).all()
    # The mean of 16 pixels has a deviation of sigma / 4; per level 10 images of 400 draws.
    for level in (100, 120, 140):
        rows = examples.images[:, 0, 0, 0] == level
        share = scipy.stats.norm.cdf((level / 127.5 - 1) / (0.5 / 4))
        found = counts[rows, 1].sum()
        assert scipy.stats.binomtest(int(found), 4000, share).pvalue > 0.001
    same = smoothing.counts(bright, examples, 8, seed=3)
    np.testing.assert_array_equal(same[1], counts)
    assert (smoothing.counts(bright, examples, 8, seed=4)[1] != counts).any()


def test_certified_radii_stay_within_the_true_distance(examples):
    smoothing = RandomizedSmoothing(sigma=0.5, draws=500, alpha=0.001)
    classes, radii = certify(*smoothing.counts(bright, examples, COUNT, 0), 0.5, 0.001)
    distance = np.abs(examples.images[:, 0, 0, 0] / 127.5 - 1) * 4
    assert (radii <= distance).all() and (radii[distance > 0.3] > 0.6 * distance[distance > 0.3]).all()
    assert (classes[distance > 0.3] == examples.labels[distance > 0.3]).all()


def test_the_report_has_the_accuracy_of_the_smoothed_classifier(examples):
    smoothing = RandomizedSmoothing(sigma=0.5, draws=500, examples=None)
    found = smoothing(bright, examples, 16, 0, L2(0.2))
    # Distances are 0.86, 0.24 and 0.39: the first and last certified, the middle one shy of 0.2 in most draws.
    assert 0.6 < found["accuracy"] < 0.9 and not found["vacuous"] and "not the network itself" in found["of"]
    linf = smoothing(bright, examples, 16, 0, LInf(0.2))
    assert linf["accuracy"] < 0.4 and linf["median_l2_radius"] == found["median_l2_radius"]
    assert RandomizedSmoothing(draws=10, examples=6)(bright, examples, 16, 0, L2(0.2))["examples"] == 6


@pytest.mark.parametrize(
    "options, message",
    [({"sigma": 0.0}, "sigma"), ({"alpha": 1.0}, "alpha"), ({"draws": 0}, "draws"), ({"examples": 0}, "examples")],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomizedSmoothing(**options)


def test_an_evaluation_has_it_beside_the_accuracy_that_attacks_leave(examples):
    data = ImageData("grey", ("dark", "bright", "none"), examples, examples, examples)
    smoothing = RandomizedSmoothing(sigma=0.5, draws=200, examples=12)
    evaluation = RobustnessEvaluation([PGD(L2(0.2), 5, relative_step_size=0.5)], (0.0, 0.2), certificates=[smoothing])
    report = evaluation(bright, data).report
    (certified,) = report["certificates"]
    assert certified["examples"] == 12 and certified["epsilon"] == 0.2 and certified["norm"] == "l2"
    assert certified["accuracy"] <= report["worst_case"]["accuracy"] == 1.0
    json.dumps(report["certificates"])
