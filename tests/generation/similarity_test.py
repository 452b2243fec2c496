"""MS-SSIM of pairs within a class."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.generation.similarity import scales, within_class_similarity

RANDOM = np.random.default_rng(0)


def test_scales_are_those_no_smaller_than_the_window():
    assert [scales(side) for side in (8, 11, 16, 22, 32, 64, 128, 176, 512)] == [0, 1, 1, 2, 2, 3, 4, 5, 5]


def test_equal_images_are_alike_and_different_ones_less():
    # Class 0 has collapsed, class 1 has not, of class 2 there is but one image.
    same, others = RANDOM.integers(0, 256, [1, 16, 16, 3], np.uint8), RANDOM.integers(0, 256, [4, 16, 16, 3], np.uint8)
    images = np.concatenate([same, others[:2], same, others[2:], others[:1]])
    labels = np.array([0, 1, 1, 0, 1, 1, 2], np.int32)
    batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    found = within_class_similarity(batches, 3)
    assert found[0] == pytest.approx(1) and found[1] < 0.2 and np.isnan(found[2])


def test_pairs_are_compared_on_as_many_scales_as_fit():
    images = RANDOM.integers(0, 256, [2, 32, 32, 1], np.uint8)
    # Two scales: the weights .0448 and .2856, as shares of their sum.
    weights = [0.0448 / 0.3304, 0.2856 / 0.3304]
    expected = tf.image.ssim_multiscale(images[:1], images[1:], 255, weights)
    found = within_class_similarity([(images, np.zeros(2, np.int32))], 1)
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-5)


def test_images_smaller_than_the_window_have_none():
    assert within_class_similarity([(np.zeros([2, 8, 8, 1], np.uint8), np.zeros(2, np.int32))], 1) is None
