"""Images between images."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.players.interpolation import blended_generator, class_path, noise_path
from robgan_tf.players.pictures import class_animation, class_interpolation, noise_animation, noise_interpolation


def test_noise_goes_from_anchor_to_anchor_on_the_arc_between_them():
    path = noise_path(np.array([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0]], np.float32), steps=5)
    half = 3 / np.sqrt(2)
    np.testing.assert_allclose(path, [[3, 0], [half, half], [0, 3], [-half, half], [-3, 0]], atol=1e-5)


def test_a_closed_path_comes_back_one_step_behind_its_end():
    path = noise_path(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), steps=4, closed=True)
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(path, [[1, 0], [half, half], [0, 1], [half, half]], atol=1e-5)


def test_classes_are_mixed_in_shares_that_lead_from_label_to_label():
    np.testing.assert_allclose(class_path([2, 0], 3, steps=3), [[0, 0, 1], [0.5, 0, 0.5], [1, 0, 0]])
    np.testing.assert_allclose(class_path([2, 0], 3, steps=2, closed=True), [[0, 0, 1], [1, 0, 0]])


def test_a_generator_of_mixed_classes_makes_the_images_of_pure_ones_and_others_between(make_generator):
    generator = make_generator()
    for norm in (norm for block in generator.blocks for norm in (block.norm_1, block.norm_2)):
        norm.gamma.assign(tf.random.normal(norm.gamma.shape))  # at first all classes are alike
    # As many mixed classes as there are classes: the shapes alone do not tell the tables.
    blended = blended_generator(generator, make_generator, class_path([2, 0], 3, steps=3))
    noise = np.random.default_rng(0).normal(size=[3, 6]).astype(np.float32)
    images = blended(noise, np.arange(3)).numpy()
    expected = generator((noise, tf.constant([2, 2, 0]))).numpy()
    np.testing.assert_allclose(images[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert np.abs(images[1] - expected[1]).max() > 1e-3
    # The mixed one has variables of its own.
    np.testing.assert_array_equal(generator((noise, tf.constant([2, 2, 0]))).numpy(), expected)


@pytest.fixture
def frames(monkeypatch):
    monkeypatch.setattr("robgan_tf.players.pictures.FRAMES", 3)


def test_pictures_have_a_row_for_each_class_and_loops_as_many_frames_as_they_should(make_generator, frames):
    generator, names = make_generator(), ("beagle", "pug", "chow")
    side = 50  # of a cell, with its border
    assert noise_interpolation(generator, names, [0, 2], columns=4, seed=0).height == 2 * side + 2
    assert class_interpolation(generator, make_generator, names, [0, 2, 1], columns=4, seed=0).height == 2 * side + 2
    loop = noise_animation(generator, names, [0, 2], columns=4, seed=0)
    assert len(loop) == 3 and {frame.height for frame in loop} == {2 * side + 2}
    loop = class_animation(generator, make_generator, names, [0, 2], columns=4, seed=0)
    assert len(loop) == 3 and {frame.height for frame in loop} == {4 * side + 2}
