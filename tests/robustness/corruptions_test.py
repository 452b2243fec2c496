"""Corruptions, against SciPy and arithmetic by hand, and accuracy on them."""

import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.robustness import corruptions
from robgan_tf.robustness.corruptions import CORRUPTIONS, corruption_accuracy

SEED = tf.constant([3, 1, 0], tf.int64)
NAMES = [corruption.name for corruption in CORRUPTIONS]


def smooth_images(count, height=16, width=16, channels=1, seed=0):
    """Random images without hard edges, float32 in [-1, 1]."""
    coarse = tf.random.stateless_uniform([count, 5, 5, channels], [seed, 0], -1, 1)
    return tf.image.resize(coarse, [height, width])


def ramp(count, size, axis):
    """Images whose value is the position along an axis (1: downwards, 2: to the right), 0 in the middle, in pixels."""
    line = np.arange(size, dtype=np.float32) - (size - 1) / 2
    shape = [1, 1, 1, 1]
    shape[axis] = size
    return tf.constant(np.broadcast_to(line.reshape(shape), [count, size, size, 1]).copy())


# ---- every corruption


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=NAMES)
def test_severity_0_changes_nothing_and_higher_ones_change_more_within_the_range(corruption):
    images = smooth_images(8)
    np.testing.assert_array_equal(corruption(images, 0, SEED), images)
    changes = []
    for severity in range(1, 6):
        corrupted = corruption(images, severity, SEED)
        assert corrupted.shape == images.shape and corrupted.dtype == tf.float32
        assert np.min(corrupted) >= -1 and np.max(corrupted) <= 1 and np.all(np.isfinite(corrupted))
        changes.append(np.mean(np.abs(corrupted - images)))
    # Cut-out takes an even number of pixels, so that neighbours may be equal in small images.
    assert 0 < changes[0] < changes[4] and changes == sorted(changes)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=NAMES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 20, 3)])
def test_images_of_other_sizes_are_corrupted_too(corruption, shape):
    images = smooth_images(2, *shape)
    assert np.any(corruption(images, 5, SEED) != images)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=NAMES)
def test_an_image_is_corrupted_alike_in_every_batch_and_otherwise_with_another_seed(corruption):
    images = smooth_images(6)
    whole = corruption(images, 5, SEED)
    part = corruption(images[4:], 5, SEED + [0, 0, 4])
    # Convolutions may add in another order for another batch; everything else is equal.
    np.testing.assert_allclose(part, whole[4:], atol=1e-6)
    is_random = corruption.name not in ("gaussian_blur", "median_filter", "contrast", "brightness")
    assert np.any(corruption(images, 5, SEED + [1, 0, 0]) != whole) == is_random


@pytest.mark.parametrize("severity", [-1, 6])
def test_a_severity_that_there_is_not_is_refused(severity):
    with pytest.raises(ValueError, match=f"contrast: severity must be within 0 .. 5, got {severity}"):
        CORRUPTIONS[NAMES.index("contrast")](smooth_images(1), severity, SEED)


# ---- one by one


def test_noise_has_the_distribution_it_says():
    zeros = tf.zeros([40, 50, 50, 1])  # 100,000 values
    normal = np.ravel(corruptions.gaussian_noise(zeros, 0.2, SEED))
    uniform = np.ravel(corruptions.uniform_noise(zeros, 0.3, SEED))
    # Five standard errors: 0.2 / sqrt(100,000) of the mean, 0.2 / sqrt(200,000) of the deviation.
    assert abs(normal.mean()) < 5 * 0.2 / math.sqrt(1e5) and abs(normal.std() - 0.2) < 5 * 0.2 / math.sqrt(2e5)
    assert np.mean(np.abs(normal) > 0.4) == pytest.approx(0.0455, abs=5 * math.sqrt(0.0455 / 1e5))
    assert np.all(np.abs(uniform) <= 0.3) and uniform.std() == pytest.approx(0.3 / math.sqrt(3), rel=0.01)


def test_gaussian_blur_is_that_of_scipy():
    images = smooth_images(2, 16, 16, 3)
    sigma = 0.06 * 16
    expected = scipy.ndimage.gaussian_filter(images, [0, sigma, sigma, 0], mode="mirror", radius=[0, 3, 3, 0])
    np.testing.assert_allclose(corruptions.gaussian_blur(images, 0.06, SEED), expected, atol=1e-5)


def test_median_is_that_of_scipy_along_columns_and_then_rows_and_interpolated_between_pixels():
    images = smooth_images(2, 16, 16, 3, seed=1)

    def separable(window):
        columns = scipy.ndimage.median_filter(images, [1, window, 1, 1], mode="mirror")
        return scipy.ndimage.median_filter(columns, [1, 1, window, 1], mode="mirror")

    np.testing.assert_array_equal(corruptions.median_filter(images, 2 / 16, SEED), separable(5))
    between = corruptions.median_filter(images, 1.25 / 16, SEED)
    np.testing.assert_allclose(between, 0.75 * separable(3) + 0.25 * separable(5), atol=1e-6)


def test_contrast_and_brightness_are_arithmetic():
    images = smooth_images(2, 8, 8, 3).numpy()
    mean = images.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(corruptions.contrast(images, 0.3, SEED), 0.3 * images + 0.7 * mean, atol=1e-6)
    np.testing.assert_array_equal(corruptions.brightness(images, 0.25, SEED), images + np.float32(0.25))


def test_rotation_by_a_right_angle_turns_whole_images_to_either_side():
    images = smooth_images(8).numpy()
    turned = corruptions.rotation(images, 90, SEED).numpy()
    sides = []
    for image, result in zip(images, turned):
        matches = [np.allclose(np.rot90(image, turns), result, atol=1e-4) for turns in (1, 3)]
        assert sum(matches) == 1
        sides.append(matches[0])
    assert 0 < sum(sides) < 8


def test_translation_moves_by_the_length_it_says_in_all_directions():
    down, right = (corruptions.translation(ramp(8, 21, axis), 4 / 21, SEED)[:, 10, 10, 0] for axis in (1, 2))
    np.testing.assert_allclose(np.hypot(down, right), 4, atol=1e-4)
    assert np.unique(np.round(np.arctan2(down, right), 3)).size == 8


def test_shear_moves_rows_in_proportion_to_their_distance_from_the_middle():
    sheared = corruptions.shear(ramp(8, 21, 2), 0.5, SEED)[:, :, 10, 0]
    distance = np.arange(21) - 10
    np.testing.assert_allclose(np.abs(sheared), np.broadcast_to(0.5 * np.abs(distance), [8, 21]), atol=1e-4)
    assert len(np.unique(np.sign(sheared[:, 0]))) == 2


def test_cut_out_covers_a_grey_square_of_the_size_it_says():
    covered = np.all(corruptions.cut_out(tf.ones([40, 16, 16, 3]), 0.5, SEED) == 0, axis=-1)
    rows, columns = covered.any(axis=2).sum(axis=1), covered.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(covered.sum(axis=(1, 2)), rows * columns)  # it is a rectangle
    # A square of 8, or what of it is within the image: its middle is.
    assert rows.max() == columns.max() == 8 and rows.min() >= 4 and columns.min() >= 4


def test_elastic_moves_no_pixel_by_more_than_it_says():
    for axis in (1, 2):
        moved = corruptions.elastic(ramp(8, 20, axis), 0.1, SEED) - ramp(8, 20, axis)
        assert 1 < np.max(np.abs(moved)) <= 2  # 0.1 x 20 pixels


# ---- accuracy


def lightness(images):
    """Logits of two classes: the second where the mean value is above 0."""
    mean = tf.reduce_mean(images, axis=[1, 2, 3])
    return tf.stack([tf.zeros_like(mean), mean], axis=-1)


def shades(count):
    values = np.linspace(0, 255, count).round().astype(np.uint8)
    return Examples(np.tile(values[:, None, None, None], [1, 8, 8, 1]), (values > 127).astype(np.int32))


def test_accuracy_is_counted_for_each_corruption_and_severity():
    examples = shades(50)
    lines = []
    report = corruption_accuracy(lightness, examples, batch_size=16, seed=1, progress=lines.append)
    by_corruption = report["by_corruption"]
    assert list(by_corruption) == NAMES and all(len(values) == 5 for values in by_corruption.values())
    assert report["examples"] == 50 and report["seed"] == 1 and len(lines) == len(NAMES)
    assert report["mean"] == pytest.approx(np.mean(list(by_corruption.values())), abs=1e-12)
    # A shade keeps its side of the middle when it is blurred, moved or its contrast is changed. Cut-out mixes grey in.
    for name in ("gaussian_blur", "median_filter", "contrast", "rotation", "translation", "shear", "elastic"):
        assert by_corruption[name] == [1.0] * 5, name
    # Brightness b turns the dark ones lighter than -b: their labels are 0.
    pixels = examples.images[:, 0, 0, 0] / 127.5 - 1
    wrong = [np.mean((pixels < 0) & (pixels > -change)) for change in (0.1, 0.2, 0.3, 0.4, 0.6)]
    np.testing.assert_allclose(by_corruption["brightness"], 1 - np.array(wrong), atol=1e-12)


def test_accuracy_does_not_depend_on_the_batch_size_nor_on_a_strategy(two_replicas):
    examples = shades(30)
    expected = corruption_accuracy(lightness, examples, batch_size=100, seed=1)
    with two_replicas.scope():
        assert corruption_accuracy(lightness, examples, batch_size=7, seed=1) == expected


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        corruption_accuracy(lightness, shades(4).select(np.zeros(4, bool)), batch_size=2, seed=0)
