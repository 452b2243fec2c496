import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing

SEED = tf.constant([3, 4, 0], tf.int64)


def random_images(shape=(64, 6, 8, 3), dtype=np.uint8):
    # From 1: black is what padding adds.
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


@pytest.mark.parametrize("inner", [(), (3,), (5, 5, 3), (8, 8, 3)])
def test_a_row_has_the_same_random_numbers_whichever_rows_are_drawn_with_it(inner):
    whole = preprocessing.uniform(SEED, [12, *inner]).numpy()
    for first, last in ((0, 4), (3, 12), (11, 12)):
        part = preprocessing.uniform(preprocessing.row_seed(SEED[:2], first), [last - first, *inner]).numpy()
        np.testing.assert_array_equal(part, whole[first:last])


def test_random_numbers_are_uniform_and_independent():
    numbers = preprocessing.uniform(SEED, [1000, 100]).numpy()
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.bincount((numbers.ravel() * 50).astype(int), minlength=50)
    assert ((counts - 2000) ** 2 / 2000).sum() < 49 + 4 * np.sqrt(2 * 49)  # chi-squared with 49 degrees of freedom
    other = preprocessing.uniform(SEED + [0, 1, 0], [1000, 100]).numpy()
    for one, two in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1]), (numbers, other)):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.02  # standard deviation 1 / 316


def test_cropping_without_padding_changes_nothing():
    images = random_images()
    np.testing.assert_array_equal(preprocessing.pad_and_crop(images, SEED, padding=0), images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_crop_is_a_window_of_the_padded_image_at_its_own_offset(dtype):
    images = random_images(dtype=dtype)
    cropped = preprocessing.pad_and_crop(tf.constant(images), SEED, padding=2).numpy()
    assert cropped.dtype == dtype
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    offsets = set()
    for image, result in zip(padded, cropped):
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(image[y : y + 6, x : x + 8], result)]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 15  # of 25, for 64 images


def test_flipping_twice_with_one_seed_restores_the_images():
    images = tf.constant(random_images())
    once = preprocessing.random_flip(images, SEED)
    np.testing.assert_array_equal(preprocessing.random_flip(once, SEED), images)


def test_about_half_of_the_images_are_mirrored_and_the_rest_untouched():
    images = random_images((400, 2, 3, 1))
    flipped = preprocessing.random_flip(tf.constant(images), SEED).numpy()
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    untouched = (flipped == images).all(axis=(1, 2, 3))
    assert (mirrored | untouched).all()
    assert 160 < mirrored.sum() < 240  # 200 expected, standard deviation 10


def test_resized_crops_cover_the_asked_share_of_the_area_and_stay_inside():
    # Ramps along y and x: the crop's corners tell where it was cut. 1 is the smallest value: 0 would be outside.
    size = 16
    ramp = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1) + 1.0
    images = tf.constant(np.repeat(ramp[None], 500, axis=0), tf.float32)
    crops = preprocessing.random_resized_crop(images, SEED, min_area=0.8, max_area=0.9).numpy()
    assert crops.min() >= 1 and crops.max() <= size
    height = (crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) / (size - 1)
    width = (crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) / (size - 1)
    np.testing.assert_allclose(height, width, atol=1e-5)
    area = height * width
    assert area.min() >= 0.8 - 1e-4 and area.max() <= 0.9 + 1e-4
    assert area.min() < 0.81 and area.max() > 0.89


def test_a_crop_of_the_whole_area_is_the_image():
    images = random_images((4, 8, 8, 3))
    crops = preprocessing.random_resized_crop(tf.constant(images), SEED, min_area=1.0, max_area=1.0)
    np.testing.assert_allclose(crops, images, atol=1e-3)


@pytest.mark.parametrize(
    "augment",
    [
        preprocessing.pad_and_crop,
        preprocessing.random_flip,
        preprocessing.random_resized_crop,
    ],
)
def test_augmentations_depend_on_the_seed_alone_and_keep_a_static_shape(augment):
    images = tf.constant(random_images((16, 8, 8, 3)))
    first, again = augment(images, SEED), augment(images, SEED)
    other = augment(images, SEED + [0, 1, 0])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    traced = tf.function(augment).get_concrete_function(tf.TensorSpec([16, 8, 8, 3], tf.uint8), SEED)
    assert traced.output_shapes == [16, 8, 8, 3]


def test_pixel_range_is_exact_at_both_ends_and_inverts_on_every_level():
    levels = np.arange(256, dtype=np.uint8)
    pixels = preprocessing.to_pixel_range(levels).numpy()
    assert pixels.dtype == np.float32
    assert pixels[0] == -1.0 and pixels[255] == 1.0
    np.testing.assert_array_equal(preprocessing.to_uint8(pixels), levels)


def test_to_uint8_clips_what_is_out_of_range():
    np.testing.assert_array_equal(preprocessing.to_uint8(tf.constant([-1.5, 0.0, 1.5])), [0, 128, 255])


def test_dequantisation_adds_up_to_its_width_and_never_leaves_the_pixel_range():
    grey, white = tf.zeros([10000]), tf.ones([100])
    noise = preprocessing.dequantise(grey, SEED, 1 / 128).numpy()
    assert noise.min() >= 0 and 0.0078 < noise.max() <= 1 / 128
    assert abs(noise.mean() - 1 / 256) < 1e-4
    np.testing.assert_array_equal(preprocessing.dequantise(white, SEED, 1 / 128), white)
    np.testing.assert_array_equal(preprocessing.dequantise(grey, SEED, 0.0), grey)


def test_centre_square_is_the_middle_of_an_image_and_identity_at_its_size():
    image = random_images((6, 10, 3))
    np.testing.assert_array_equal(preprocessing.centre_square(tf.constant(image), 6), image[:, 2:8])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: preprocessing.pad_and_crop(x, SEED, padding=-1), "pad_and_crop.padding must be a whole number >= 0"),
        (
            lambda x: preprocessing.random_resized_crop(x, SEED, min_area=0.9, max_area=0.8),
            "min_area=0.9, max_area=0.8",
        ),
        (lambda x: preprocessing.random_resized_crop(x[:, :, :4], SEED), "needs square images, got 8x4"),
        (lambda x: preprocessing.dequantise(x, SEED, -0.1), "must be 0 or more, got -0.1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(tf.zeros([2, 8, 8, 3]))
