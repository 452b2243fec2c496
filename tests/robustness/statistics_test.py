"""Intervals and counts, against SciPy and scikit-learn."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from robgan_tf.robustness.statistics import confusion_matrix, per_class_accuracy, wilson


@pytest.mark.parametrize("trials", [1, 2, 7, 100, 1000, 10000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_wilson_interval_is_that_of_scipy(trials, confidence):
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        # Two ways to write one formula in float64: they differ in the last bits alone.
        np.testing.assert_allclose(wilson(successes, trials, confidence), (expected.low, expected.high), atol=1e-14)


def test_wilson_interval_ends_exactly_at_none_and_at_all():
    assert wilson(0, 360)[0] == 0.0 and wilson(360, 360)[1] == 1.0
    assert wilson(0, 360)[1] == pytest.approx(1 - wilson(360, 360)[0], abs=1e-15)


@pytest.mark.parametrize("successes, trials", [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match=f"got {confidence}"):
        wilson(1, 2, confidence)


def test_confusion_matrix_and_accuracy_by_class_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300).astype(np.int32)
    predictions = np.where(random.random(300) < 0.6, labels, random.integers(0, 5, 300)).astype(np.int64)
    matrix = confusion_matrix(labels, predictions, 5)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predictions, labels=range(5)))
    recall = sklearn.metrics.recall_score(labels, predictions, average=None)
    np.testing.assert_array_equal(per_class_accuracy(matrix), recall)


def test_a_class_without_examples_has_a_row_of_zeros_and_no_accuracy():
    matrix = confusion_matrix([0, 0, 2], [0, 1, 2], 4)
    np.testing.assert_array_equal(matrix, [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(per_class_accuracy(matrix), [0.5, np.nan, 1.0, np.nan])


def test_no_examples_give_an_empty_matrix():
    np.testing.assert_array_equal(confusion_matrix(np.zeros(0, int), np.zeros(0, int), 2), np.zeros([2, 2]))


@pytest.mark.parametrize(
    "labels, predictions, message",
    [
        ([0, 3], [0, 1], "labels must be within 0 .. 2, got 0 .. 3"),
        ([0, 1], [-1, 1], "predictions must be within 0 .. 2, got -1 .. 1"),
        ([0, 1], [0], "equally long"),
    ],
)
def test_classes_that_there_are_not_are_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, predictions, 3)
