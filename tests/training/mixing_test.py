"""CutMix against a computation by hand."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.training.mixing import CutMix, neighbours
from robgan_tf.training.randomness import mixing_seeds

IMAGES = np.random.default_rng(0).uniform(-1, 1, [6, 5, 8, 2]).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def test_neighbours_are_exchanged():
    assert neighbours(tf.constant([[1], [2], [3], [4]])).numpy().tolist() == [[2], [1], [4], [3]]
    assert neighbours(tf.zeros([0, 3])).shape == [0, 3]


def test_a_rectangle_and_its_share_of_the_label_come_from_the_neighbour():
    uniform = np.random.default_rng(1).uniform(size=[6, 4]).astype(np.float32)
    uniform[:, 3] = [0.1, 0.2, 0.9, 0.1, 0.3, 0.4]
    images, labels = CutMix(probability=0.5).mixed(tf.constant(IMAGES), tf.one_hot(LABELS, 3), tf.constant(uniform))
    for row, (kept, y, x, chance) in enumerate(uniform):
        expected, other = IMAGES[row].copy(), row ^ 1
        if chance < 0.5:
            half_height, half_width = int(5 * np.sqrt(1 - kept)) // 2, int(8 * np.sqrt(1 - kept)) // 2
            y, x = int(y * 5), int(x * 8)
            box = np.s_[max(y - half_height, 0) : y + half_height, max(x - half_width, 0) : x + half_width]
            expected[box] = IMAGES[other][box]
            share = IMAGES[other][box][..., 0].size / 40
        else:
            share = 0
        np.testing.assert_array_equal(images[row], expected)
        probabilities = (1 - share) * np.eye(3)[LABELS[row]] + share * np.eye(3)[LABELS[other]]
        np.testing.assert_allclose(labels[row], probabilities, atol=1e-6)


def test_the_share_that_stays_is_uniform_before_the_border_cuts_it():
    images, labels = tf.zeros([2000, 32, 32, 1]), tf.constant([0, 1] * 1000)
    seed = tf.constant([1, 2])
    _, mixed = CutMix(probability=1.0)(images, labels, seed, 2)
    np.testing.assert_allclose(tf.reduce_sum(mixed, axis=1), 1.0, atol=1e-6)
    other = 1 - tf.gather(mixed, labels, axis=1, batch_dims=1).numpy()
    # A square of area 1 - u, centred anywhere: of each side s on average s - s^2 / 4 is inside, so E = E (s - s^2/4)^2
    # = E s^2 - s^3 / 2 + s^4 / 16 with s^2 uniform = 1/2 - 1/5 + 1/48.
    assert abs(other.mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 0.03  # pixels are whole, and sides even
    _, half = CutMix(probability=0.5)(images, labels, seed, 2)
    untouched, in_all = ((tf.reduce_max(found, axis=1) == 1.0).numpy().mean() for found in (half, mixed))
    untouched -= in_all
    assert 0.4 < untouched < 0.56


def test_kinds_of_images_are_mixed_by_random_numbers_of_their_own():
    seed = tf.constant([5, 6])
    one, other = mixing_seeds(seed, 2)
    assert not np.array_equal(one, other) and not np.array_equal(one, seed)


def test_a_number_that_is_not_even_is_refused():
    CutMix().check((4, 0))
    with pytest.raises(ValueError, match="a replica has 4 real and 3 generated .*make both even"):
        CutMix().check((4, 3))
