"""Filters and moves of images: SciPy's way and that of tensorflow-addons are the same."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.robustness.image_operations import SciPyOperations, image_operations

ADDONS = importlib.util.find_spec("tensorflow_addons") is not None
NEWER = tuple(map(int, tf.__version__.split(".")[:2])) > (2, 15)


def random(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


IMAGES = random(5, 14, 11, 3)
CALLS = {
    "gaussian_filter": (1.3, 4),
    "median_filter": ((5, 1),),
    "rotate": (random(5, seed=1) * 3,),
    "translate": (random(5, 2, seed=2) * 30,),  # further than the image is wide
    "transform": (
        np.concatenate([np.eye(3)[None, :2].repeat(5, 0).reshape(5, 6) + random(5, 6, seed=3), np.zeros([5, 2])], 1),
    ),
    "cut_out": (6, np.array([[0, 0], [13, 10], [7, 5], [2, 9], [13, 0]], np.int32)),
    "warp": (random(5, 14, 11, 2, seed=4) * 4,),
}


@pytest.mark.skipif(NEWER or not ADDONS, reason="tensorflow-addons runs on TensorFlow 2.15 alone")
@pytest.mark.parametrize("name", CALLS)
def test_both_ways_are_equal(name):
    from robgan_tf.robustness.image_operations import AddonsOperations

    arguments = [np.float32(a) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in CALLS[name]]
    one = getattr(SciPyOperations(), name)(tf.constant(IMAGES), *arguments)
    other = getattr(AddonsOperations(), name)(tf.constant(IMAGES), *arguments)
    assert one.dtype == other.dtype == tf.float32
    # 1e-5 of the range, which is 2: the two interpolate in another order, and one computes places in float32.
    np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("name", CALLS)
def test_one_image_comes_out_as_it_does_among_others(name):
    arguments = [a[2:3] if isinstance(a, np.ndarray) else a for a in CALLS[name]]
    alone = getattr(SciPyOperations(), name)(tf.constant(IMAGES[2:3]), *arguments)
    np.testing.assert_array_equal(alone[0], getattr(SciPyOperations(), name)(tf.constant(IMAGES), *CALLS[name])[2])


def test_addons_are_used_where_they_can_be():
    assert isinstance(image_operations(), SciPyOperations) == (NEWER or not ADDONS)
