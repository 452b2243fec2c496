"""DiffAugment: its formulas in NumPy, gradients, and its place in co-training."""

import gin
import numpy as np
import pytest
import tensorflow as tf
from steps import SAME_START, after_a_step, assert_same_step

from robgan_tf.training.diff_augment import DiffAugment
from robgan_tf.training.randomness import AUGMENTED_FAKE, AUGMENTED_REAL, uniform_numbers
from robgan_tf.training.top_k import TopK

ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))
ONLY = {
    "color": DiffAugment(translation=0, cutout=0),
    "translation": DiffAugment(color=False, cutout=0),
    "cutout": DiffAugment(color=False, translation=0),
    "all": DiffAugment(),
}


def inputs(shape, count=12):
    """Images, and their random numbers: those of the first two are the least and the largest that there are."""
    random = np.random.default_rng(0)
    numbers = random.uniform(size=[count, 7]).astype(np.float32)
    numbers[0], numbers[1] = 0, ALMOST_ONE
    return random.uniform(-1, 1, [count, *shape]).astype(np.float32), numbers


def color_by_hand(image, brightness, saturation, contrast):
    image = image + (brightness - 0.5)
    mean = image.mean(axis=2, keepdims=True)
    image = (image - mean) * (saturation * 2) + mean
    return (image - image.mean()) * (contrast + 0.5) + image.mean()


def translation_by_hand(image, down, right, share=1 / 8):
    """Pixel (i, j) of the result is pixel (i + s, j + t) of the image, 0 outside; s within -most..most."""
    height, width, _ = image.shape
    most = [int(side * share + 0.5) for side in (height, width)]
    s, t = (int(np.floor(number * (2 * one + 1))) - one for number, one in zip((down, right), most))
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i + s < height and 0 <= j + t < width:
                result[i, j] = image[i + s, j + t]
    return result


def cutout_by_hand(image, row, column, share=1 / 2):
    """As the authors do it: the pixels of a square, those outside of the image brought to its border, are 0."""
    result, (height, width, _) = image.copy(), image.shape
    rows, columns = (int(side * share + 0.5) for side in (height, width))
    top, left = int(row * (height + 1 - rows % 2)), int(column * (width + 1 - columns % 2))
    for i in range(rows):
        for j in range(columns):
            y, x = i + top - rows // 2, j + left - columns // 2
            result[min(max(y, 0), height - 1), min(max(x, 0), width - 1)] = 0
    return result


def by_hand(parts, image, numbers):
    image, numbers = image.astype(np.float64), numbers.astype(np.float64)
    if parts in ("color", "all"):
        image = color_by_hand(image, *numbers[:3])
    if parts in ("translation", "all"):
        image = translation_by_hand(image, *numbers[3:5])
    if parts in ("cutout", "all"):
        image = cutout_by_hand(image, *numbers[5:])
    return image


@pytest.mark.parametrize("shape", [(8, 8, 3), (10, 13, 1)], ids=["even sizes", "odd sizes, grey"])
@pytest.mark.parametrize("parts", ONLY)
def test_images_are_those_of_the_published_formulas(parts, shape):
    images, numbers = inputs(shape)
    found = ONLY[parts](tf.constant(images), tf.constant(numbers))
    expected = [by_hand(parts, image, row) for image, row in zip(images, numbers)]
    # Float32 rounding of sums of some hundred numbers of size 1.
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.shape == images.shape and found.dtype == tf.float32


def test_the_shares_are_those_of_the_bindings():
    gin.parse_config("diff_augment.color = False\ndiff_augment.translation = 0.5\ndiff_augment.cutout = 0.25")
    images, numbers = inputs((8, 8, 2))
    expected = [translation_by_hand(image, *row[3:5], share=0.5) for image, row in zip(images, numbers)]
    expected = [cutout_by_hand(image, *row[5:], share=0.25) for image, row in zip(expected, numbers)]
    np.testing.assert_array_equal(DiffAugment()(tf.constant(images), tf.constant(numbers)), expected)


def test_an_augmentation_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"does nothing by its bindings: set CoTraining.augmentation = None"):
        DiffAugment(color=False, translation=0, cutout=0)


@pytest.mark.parametrize("parts", ONLY)
def test_gradients_reach_each_image_alone_and_are_those_of_an_affine_map(parts):
    """Each image's result is affine in the image: <w, T(x + d) - T(x)> is the gradient's product with d, for any d."""
    images, numbers = map(tf.constant, inputs((8, 8, 3)))
    random = np.random.default_rng(1)
    weights, direction = (tf.constant(random.normal(size=images.shape), tf.float32) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(weights[4] * ONLY[parts](images, numbers)[4])
    gradient = tape.gradient(total, images)
    assert not np.any(gradient[:4]) and not np.any(gradient[5:]) and np.any(gradient[4])
    moved = ONLY[parts](images + direction, numbers) - ONLY[parts](images, numbers)
    # Float32 rounding of a sum of 192 products of size 1.
    np.testing.assert_allclose(
        np.sum(gradient[4] * direction[4]), np.sum((weights * moved)[4].numpy()), rtol=1e-4, atol=1e-4
    )


# ---- in co-training


def test_real_and_generated_images_have_random_numbers_of_their_own_that_replicas_share(two_replicas):
    seed = tf.constant([3, 4])
    real, fake = (uniform_numbers(seed, use, 8, 7).numpy() for use in (AUGMENTED_REAL, AUGMENTED_FAKE))
    assert not np.any(real == fake) and len(np.unique(real)) == 56
    draw = tf.function(lambda: two_replicas.run(uniform_numbers, args=(seed, AUGMENTED_REAL, 4, 7)))
    np.testing.assert_array_equal(np.concatenate(two_replicas.experimental_local_results(draw())), real)


@pytest.mark.parametrize("how", ["replicas", *(pytest.param(how, marks=pytest.mark.slow) for how in ("parts", "xla"))])
def test_parts_replicas_and_xla_make_the_same_step_with_all_that_makes_a_better_generator(
    cotraining, how, two_replicas
):
    def make(**options):
        everything = {"augmentation": DiffAugment(), "balanced_labels": True, "top_k": TopK(0.5)}
        stage = cotraining(attacker=SAME_START, **everything, **options)
        stage.step.assign(5)  # the second epoch: k is half of the batch
        return stage

    options = {"parts": {"accumulation": 4}, "replicas": {"strategy": two_replicas}, "xla": {"jit_compile": True}}[how]
    # Sums in another order: float32 rounding of weights of size 1.
    assert_same_step(after_a_step(make, **options), after_a_step(make), atol=5e-6, metrics_atol=5e-5)


def test_what_is_no_augmentation_is_refused(cotraining):
    message = (
        r"CoTraining.augmentation must be a reference such as @diff_augment\(\), with brackets, or None, got <class"
    )
    with pytest.raises(ValueError, match=message):
        cotraining(augmentation=DiffAugment)
