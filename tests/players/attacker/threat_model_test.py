import math

import hypothesis.extra.numpy as drawn_arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as draw

from robgan_tf.players.attacker.threat_model import L1, L2, PIXEL_RANGE, LInf, epsilon_255

every_norm = pytest.mark.parametrize("norm", [LInf, L2, L1])
SEED = tf.constant([1, 2])


def images_at_the_border(seed=0, count=64):
    """Images in [-1, 1], a third of their pixels at either end of the range."""
    images = np.random.default_rng(seed).uniform(-1.5, 1.5, [count, 3, 4, 2])
    return np.clip(images, -1, 1).astype(np.float32)


def length(perturbation, norm):
    flat = perturbation.reshape(len(perturbation), -1).astype(np.float64)
    return np.linalg.norm(flat, ord={LInf: np.inf, L2: 2, L1: 1}[norm], axis=1)


@every_norm
@pytest.mark.parametrize("epsilon", [0.01, 0.3, 5.0])
def test_projection_ends_in_the_ball_and_in_the_range_of_pixels(norm, epsilon):
    originals = images_at_the_border()
    wild = originals + np.random.default_rng(1).normal(scale=2, size=originals.shape).astype(np.float32)
    projected = norm(epsilon).project(tf.constant(wild), originals).numpy()
    assert projected.min() >= -1 and projected.max() <= 1
    # float32: pixels up to 1 are rounded by 2**-24, and so is epsilon.
    assert length(projected - originals, norm).max() <= epsilon * (1 + 1e-6) + 2**-24 * np.sqrt(24)
    if epsilon < 1:
        assert length(projected - originals, norm).max() > 0.99 * epsilon


@every_norm
def test_projection_leaves_alone_what_is_inside(norm):
    # Multiples of 1/64 with few bits: sums and differences are exact.
    originals = np.random.default_rng(0).integers(-32, 33, [8, 3, 4, 2]).astype(np.float32) / 64
    inside = originals + np.random.default_rng(1).integers(-4, 5, originals.shape).astype(np.float32) / 64
    ball = norm(2.0 if norm is L1 else 0.5)  # 24 entries of 4/64 at most
    np.testing.assert_array_equal(ball.project(tf.constant(inside), originals), inside)


@every_norm
def test_projecting_twice_is_projecting_once(norm):
    originals = images_at_the_border()
    wild = originals + np.random.default_rng(1).normal(size=originals.shape).astype(np.float32)
    once = norm(0.3).project(tf.constant(wild), originals)
    # What the first projection put on the border may be a rounding (2**-24) outside of it again.
    np.testing.assert_allclose(norm(0.3).project(once, originals), once, atol=2**-23, rtol=0)


def test_linf_projection_clips_each_entry():
    perturbation = tf.constant([-0.75, -0.5, 0.25, 0.5, 2.0])
    np.testing.assert_array_equal(LInf(0.5).project_perturbation(perturbation), [-0.5, -0.5, 0.25, 0.5, 0.5])


def test_l2_projection_shrinks_each_image_by_itself_and_keeps_its_direction():
    # Lengths 5 and 0.5: the first is cut to 1, the second stays.
    perturbation = np.array([[3, 4], [0.3, 0.4]], np.float32).reshape([2, 1, 2, 1])
    expected = np.array([[0.6, 0.8], [0.3, 0.4]]).reshape([2, 1, 2, 1])
    np.testing.assert_allclose(L2(1.0).project_perturbation(perturbation), expected, rtol=1e-6)  # float32


def test_ascent_directions_have_unit_length_and_are_steepest():
    gradient = np.array([[3, -4], [0, 0], [3e-10, -4e-10]], np.float32).reshape([3, 1, 2, 1])
    signs = np.array([[1, -1], [0, 0], [1, -1]]).reshape(gradient.shape)
    np.testing.assert_array_equal(LInf(1.0).ascent_direction(gradient), signs)
    # No gradient is no direction, and not NaN; a small one counts in full.
    units = np.array([[0.6, -0.8], [0, 0], [0.6, -0.8]]).reshape(gradient.shape)
    np.testing.assert_allclose(L2(1.0).ascent_direction(gradient), units, rtol=1e-6)  # float32


@every_norm
def test_size_is_the_norm_of_each_images_perturbation(norm):
    perturbation = images_at_the_border()
    np.testing.assert_allclose(norm(1.0).size(perturbation), length(perturbation, norm), rtol=1e-6)  # float32


@every_norm
def test_random_perturbations_fill_the_ball_uniformly(norm):
    # The share of the ball's volume within the radius r is (r / epsilon)^d, uniform on [0, 1] if the point is.
    perturbation = norm(0.3).random_perturbation(tf.constant([4000, 1, 2, 2]), SEED).numpy()
    assert perturbation.dtype == np.float32
    volume = np.sort((length(perturbation, norm) / 0.3) ** 4)
    # Kolmogorov-Smirnov: 1.95 / sqrt(4000) is exceeded with probability 0.001; the seed is fixed.
    assert np.abs(volume - np.linspace(0, 1, 4000)).max() < 1.95 / np.sqrt(4000)
    # Each entry is symmetric about 0 and has a standard deviation below epsilon: 4 standard errors.
    assert np.abs(perturbation.mean(0)).max() < 4 * 0.3 / np.sqrt(4000)
    assert (perturbation.max((0, 1, 2)) > 0.2).all() and (perturbation.min((0, 1, 2)) < -0.2).all()


@every_norm
def test_random_perturbations_depend_on_the_seed_alone(norm):
    one, same, other = (
        norm(0.3).random_perturbation(tf.constant([2, 2, 2, 1]), seed) for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    assert np.abs(one[0] - one[1]).max() > 0.01  # each image has its own


def test_linf_ball_of_radius_zero_is_the_image():
    originals = images_at_the_border()
    np.testing.assert_array_equal(LInf(0.0).project(tf.constant(originals + 1), originals), originals)


def test_l2_ball_of_radius_zero_is_the_image():
    originals = images_at_the_border()
    np.testing.assert_array_equal(L2(0.0).project(tf.constant(originals + 1), originals), originals)


def test_l2_projection_of_the_image_itself_to_radius_zero_is_the_image():
    originals = images_at_the_border()
    np.testing.assert_array_equal(L2(0.0).project(tf.constant(originals), originals), originals)


@every_norm
@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf, "0.1", None])
def test_an_impossible_epsilon_is_refused(norm, epsilon):
    with pytest.raises(ValueError, match=r"\.epsilon must be a number >= 0, got") as error:
        norm(epsilon)
    assert repr(epsilon) in str(error.value)
    # What 8/255 is on this scale; text is told that it needs no quotation marks.
    assert ("write 0.1." if epsilon == "0.1" else "0.0627") in str(error.value)


def test_epsilon_is_told_in_both_units():
    # The paper's 0.02, 0.04, 0.08 are 2.55, 5.1 and 10.2 of 255.
    assert PIXEL_RANGE == (-1, 1)
    assert [epsilon_255(epsilon) for epsilon in (0.02, 0.04, 0.08)] == pytest.approx([2.55, 5.1, 10.2])
    assert str(LInf(0.08)) == "linf ball, epsilon 0.08 on [-1, 1] = 10.20/255"
    assert L2(0.5).describe() == {"norm": "l2", "epsilon": 0.5, "epsilon_255": 63.75, "pixel_range": [-1.0, 1.0]}


# ---- whatever the input

EPSILONS = draw.floats(0, 3, width=32)
SHAPES = draw.tuples(*(draw.integers(1, 4) for _ in range(4)))


@draw.composite
def attacked_images(draw_one):
    """Clean images in range, and others anywhere up to 1e3, both float32 of one shape."""
    shape = draw_one(SHAPES)
    images = (
        draw_one(drawn_arrays.arrays(np.float32, shape, elements=draw.floats(-size, size, width=32)))
        for size in (1, 1000)
    )
    return tuple(images)


def rounding(images):
    """What float32 may add to the norm of a difference: pixels up to 1 are rounded by 2**-24, here and in the test."""
    return 2**-23 * np.sqrt(images[0].size)


# Few examples, for each compiles nothing and yet takes milliseconds; no deadline, for the machine may be busy.
quickly = settings(max_examples=60, deadline=None, derandomize=True)


@every_norm
@quickly
@given(attacked_images(), EPSILONS)
def test_any_projection_is_in_ball_and_range(norm, images, epsilon):
    originals, wild = images
    projected = norm(epsilon).project(tf.constant(wild), originals).numpy()
    assert np.isfinite(projected).all() and np.abs(projected).max() <= 1
    assert length(projected - originals, norm).max() <= epsilon * (1 + 1e-6) + rounding(originals)


@every_norm
@quickly
@given(attacked_images(), EPSILONS)
def test_any_projection_is_its_own_projection(norm, images, epsilon):
    originals, wild = images
    once = norm(epsilon).project(tf.constant(wild), originals)
    np.testing.assert_allclose(norm(epsilon).project(once, originals), once, rtol=0, atol=rounding(originals))


@every_norm
@quickly
@given(attacked_images(), EPSILONS, draw.floats(0, 1, width=32))
def test_any_larger_ball_holds_the_smaller_one(norm, images, epsilon, share):
    originals, wild = images
    inside = norm(epsilon * share).project(tf.constant(wild), originals)
    np.testing.assert_allclose(norm(epsilon).project(inside, originals), inside, rtol=0, atol=rounding(originals))


@every_norm
@quickly
@given(attacked_images())
def test_any_size_is_numpys_norm(norm, images):
    _, wild = images
    wild = np.where(np.abs(wild) < 1e-15, 0, wild)  # whose squares are below float32
    np.testing.assert_allclose(norm(1.0).size(wild), length(wild, norm), rtol=1e-5)


@every_norm
@quickly
@given(attacked_images())
def test_any_direction_has_unit_length_or_none_and_climbs(norm, images):
    _, gradient = images
    gradient = np.where(np.abs(gradient) < 1e-6, 0, gradient)
    direction = norm(1.0).ascent_direction(tf.constant(gradient)).numpy()
    sizes = length(direction, norm)
    some = np.abs(gradient).max(axis=(1, 2, 3)) > 0
    np.testing.assert_allclose(sizes, some.astype(float), rtol=1e-5)
    assert (np.sum(direction.astype(np.float64) * gradient, axis=(1, 2, 3))[some] > 0).all()


@every_norm
@quickly
@given(SHAPES, EPSILONS, draw.tuples(*[draw.integers(-(2**31), 2**31 - 1)] * 2))
def test_any_random_perturbation_is_in_the_ball(norm, shape, epsilon, seed):
    perturbation = norm(epsilon).random_perturbation(tf.constant(shape), seed).numpy()
    assert perturbation.shape == shape and perturbation.dtype == np.float32
    assert length(perturbation, norm).max() <= epsilon * (1 + 1e-6)
