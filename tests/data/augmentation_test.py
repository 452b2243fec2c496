"""Augmentations that hide, shift and change: against NumPy and Pillow, and the same however a batch is divided."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from robgan_tf.data import augmentation, pillow_operations
from robgan_tf.data.preprocessing import row_seed, uniform

SEED = tf.constant([3, 4, 0], tf.int64)
ALL = [
    augmentation.cutout,
    lambda images, seed: augmentation.random_erasing(images, seed, probability=0.7),
    lambda images, seed: augmentation.crop_shift(images, seed, strength=3),
    augmentation.random_operation,
]


def random_images(count=64, height=10, width=12, channels=3):
    # From 1: black is what is painted.
    return np.random.default_rng(0).integers(1, 256, [count, height, width, channels]).astype(np.uint8)


@pytest.mark.parametrize("function", ALL)
def test_an_image_is_changed_alike_however_the_batch_is_divided(function):
    images = tf.constant(random_images(24))
    whole = function(images, SEED).numpy()
    assert whole.shape == images.shape and not np.array_equal(whole, images)
    for first, last in ((0, 7), (7, 24)):
        part = function(images[first:last], row_seed(SEED[:2], tf.constant(first, tf.int64))).numpy()
        np.testing.assert_array_equal(part, whole[first:last])


@pytest.mark.parametrize("function", ALL)
def test_images_of_one_channel_and_in_a_data_pipeline(function):
    images = random_images(8, channels=1)
    dataset = tf.data.Dataset.from_tensors(images).map(lambda batch: function(batch, SEED))
    (found,) = dataset
    assert found.shape == images.shape and float(tf.reduce_min(tf.cast(found, tf.float32))) >= 0


def test_cutout_paints_a_square_around_a_centre_in_the_image():
    images = random_images()
    found = augmentation.cutout(tf.constant(images), SEED, size=5, fill=0).numpy()
    assert found.dtype == np.uint8
    centres = uniform(SEED, [64, 2]).numpy()
    for image, result, (y, x) in zip(images, found, centres):
        y, x = math.floor(y * 10), math.floor(x * 12)
        expected = image.copy()
        expected[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = 0
        np.testing.assert_array_equal(result, expected)


def test_erased_rectangles_have_the_areas_ratios_and_share_that_were_asked_for():
    images = random_images(400, 40, 40, 1)
    found = augmentation.random_erasing(
        tf.constant(images), SEED, probability=0.25, min_area=0.1, max_area=0.2, max_ratio=2.0
    ).numpy()
    ratios = []
    for image, result in zip(images, found):
        rows, columns, _ = np.nonzero(result == 0)
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width  # a whole rectangle
            assert 0.1 - 0.02 < height * width / 1600 < 0.2 + 0.02  # sides are whole
            ratios.append(height / width)
        np.testing.assert_array_equal(result[result > 0], image[result > 0])
    assert 65 < len(ratios) < 135  # 100 expected, standard deviation 9
    assert 0.45 < min(ratios) < 0.7 and 1.5 < max(ratios) < 2.2


def test_erasing_everything_stays_inside_of_the_image():
    images = random_images(50, 6, 30)
    found = augmentation.random_erasing(tf.constant(images), SEED, probability=1.0, min_area=1.0, max_area=1.0).numpy()
    assert found.shape == images.shape and ((found == 0).any(axis=(1, 2, 3))).all()


def test_a_shifted_crop_is_a_window_at_another_place_on_black():
    images = random_images(200)
    found = augmentation.crop_shift(tf.constant(images), SEED, strength=4).numpy()
    left_out, moved = [], 0
    for image, result in zip(images, found):
        rows, columns, _ = np.nonzero(result)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        window = result[top:bottom, left:right]
        height, width = window.shape[:2]
        assert (window > 0).all()
        places = [
            (y, x)
            for y in range(10 - height + 1)
            for x in range(12 - width + 1)
            if np.array_equal(image[y : y + height, x : x + width], window)
        ]
        assert len(places) == 1
        moved += places[0] != (top, left)
        left_out.append(10 - height + 12 - width)
    counts = np.bincount(left_out, minlength=5)
    assert len(counts) == 5 and counts.min() > 20  # 40 each, standard deviation 6
    assert moved > 60
    with pytest.raises(ValueError, match="crop_shift.strength = 10 must be less than the images' sides, 10 and 12"):
        augmentation.crop_shift(tf.constant(images), SEED, strength=10)


@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        (pillow_operations.saturation, lambda image, strength: ImageEnhance.Color(image).enhance(strength)),
        (pillow_operations.brightness, lambda image, strength: ImageEnhance.Brightness(image).enhance(strength)),
        (pillow_operations.contrast, lambda image, strength: ImageEnhance.Contrast(image).enhance(strength)),
        (pillow_operations.sharpness, lambda image, strength: ImageEnhance.Sharpness(image).enhance(strength)),
        (pillow_operations.autocontrast, lambda image, strength: ImageOps.autocontrast(image)),
        (pillow_operations.equalize, lambda image, strength: ImageOps.equalize(image)),
    ],
)
def test_operations_on_colour_are_those_of_pillow(operation, pillow):
    images = random_images(6, 20, 24) // 2 + 40
    images[0] = 77  # a single colour
    strengths = np.linspace(0.5, 1.8, 6).astype(np.float32)
    found = operation(tf.constant(images, tf.float32), tf.constant(strengths), tf.zeros([6]))
    found = np.clip(np.round(found), 0, 255)
    for image, result, strength in zip(images, found, strengths):
        expected = np.asarray(pillow(Image.fromarray(image), float(strength)), np.float32)
        # Pillow cuts off where it blends; here it is rounded, and grey is rounded before.
        assert np.abs(result - expected).max() <= 2
        assert np.abs(result - expected).mean() < 1


def test_shear_and_rotation_move_pixels_around_the_centre():
    images = tf.constant(random_images(2, 11, 11), tf.float32)
    turned = pillow_operations.rotate(images, tf.constant([90.0, 90.0]), tf.constant([0.0, 0.9])).numpy()
    np.testing.assert_array_equal(turned[0], np.rot90(images[0], 1))
    np.testing.assert_array_equal(turned[1], np.rot90(images[1], -1))
    # A whole pixel for each row from the centre: row 5 stays, row 6 comes from one to the right.
    sheared = pillow_operations.shear(images, tf.constant([1.0, 1.0]), tf.constant([0.0, 0.6])).numpy()
    np.testing.assert_array_equal(sheared[0][5], images[0][5])
    np.testing.assert_array_equal(sheared[0][6, :-1], images[0][6, 1:])
    assert (sheared[0][6, -1] == 0).all()
    np.testing.assert_array_equal(sheared[1][:, 5], images[1][:, 5])
    np.testing.assert_array_equal(sheared[1][:-1, 6], images[1][1:, 6])


def test_every_operation_has_its_turn():
    images = random_images(800, 18, 18)
    choice = (uniform(SEED, [800, 3]).numpy()[:, 0] * 8).astype(int)
    counts = np.bincount(choice, minlength=8)
    assert len(counts) == 8 and ((counts - 100) ** 2 / 100).sum() < 7 + 4 * np.sqrt(14)  # chi-squared, 7 degrees
    found = augmentation.random_operation(tf.constant(images), SEED).numpy()
    changed = (found != images).any(axis=(1, 2, 3))
    for index in range(8):
        assert changed[choice == index].mean() > 0.6, index  # 1 degree moves no pixel of so small an image
    assert found.min() >= 0 and found.max() <= 255 and (found == np.round(found)).all()


def test_areas_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="needs min_area <= max_area, got 0.5 and 0.33"):
        augmentation.random_erasing(tf.zeros([1, 4, 4, 1]), SEED, min_area=0.5)
