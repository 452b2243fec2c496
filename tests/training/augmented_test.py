"""Augmented generated images: those of the source, changed, the same on any number of replicas."""

import gin
import numpy as np
import pytest
import tensorflow as tf
from small_stages import make_generator

from robgan_tf.data import preprocessing
from robgan_tf.data.augmentation import cutout
from robgan_tf.data.preprocessing import random_flip, to_pixel_range, to_uint8
from robgan_tf.training.augmented import Augmented, augmented
from robgan_tf.training.generated import FromGenerator

SEED = tf.constant([3, 4])


def test_each_image_is_that_of_the_source_or_its_mirror_image():
    source = FromGenerator(make_generator())
    plain, labels = source.sample(SEED, 20)
    found, found_labels = Augmented(source, [random_flip]).sample(SEED, 20)
    plain = to_pixel_range(to_uint8(plain)).numpy()
    np.testing.assert_array_equal(labels, found_labels)
    mirrored = (found.numpy() == plain[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found.numpy() == plain).all(axis=(1, 2, 3))).all() and 3 < mirrored.sum() < 17
    other, _ = Augmented(source, [random_flip]).sample(SEED + 1, 20)
    assert not np.array_equal(found, other)


def test_any_number_of_replicas_sees_the_same_images(two_replicas):
    generator = make_generator()
    whole, _ = Augmented(FromGenerator(generator), [random_flip, cutout]).sample(SEED, 8)
    with two_replicas.scope():
        twin = make_generator()
        twin.set_weights(generator.get_weights())
        source = Augmented(FromGenerator(twin), [random_flip, cutout])
        shares = two_replicas.run(tf.function(lambda: source.sample(SEED, 4)[0]))
    parts = two_replicas.experimental_local_results(shares)
    # Rounding to 8 bits may go the other way after float32's.
    np.testing.assert_allclose(tf.concat(parts, 0), whole, atol=1.01 / 127.5)
    assert np.mean(np.abs(tf.concat(parts, 0) - whole)) < 1e-3


def test_it_is_bound_in_gin_and_is_nothing_without_a_source():
    gin.parse_config("augmented.source = @this_generator\naugmented.augment = (@random_flip, @pad_and_crop)")
    source = augmented(make_generator(), 3)
    assert source.origin == "the generator of this run" and len(source.augment) == 2
    source.check(3, (8, 8, 1))
    with pytest.raises(ValueError, match="it has classes 3, the classifier 4"):
        source.check(4, (8, 8, 1))
    assert augmented(None, 3) is None


def test_what_can_not_be_augmented_is_refused():
    with pytest.raises(ValueError, match="Experiment.augment makes"):
        Augmented(FromGenerator(make_generator()), [lambda images, seed: images[:, 1:]])
    with pytest.raises(ValueError, match="augmented.source must be a reference such as @sample_file"):
        augmented(None, 3, "sample_file", [preprocessing.random_flip])
