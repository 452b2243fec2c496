"""What can't be evaluated is refused in one line that says what and how to mend it."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.players.attacker import inputs
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier

WEIGHT = np.random.default_rng(0).normal(size=[32, 3]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 32]) @ WEIGHT


def data_of(images, labels, classes=3):
    examples = Examples(images, labels)
    return ImageData("blobs", tuple(map(str, range(classes))), examples, examples.select(np.arange(0)), examples)


def blobs(classifier=linear):
    """60 images of the classes that `classifier` gives them on [-1, 1]."""
    images = np.random.default_rng(1).integers(0, 256, [60, 4, 4, 2]).astype(np.uint8)
    return data_of(images, np.argmax(classifier((images / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


def test_what_fits_passes():
    data = blobs()
    inputs.check_classifier(linear, data)
    inputs.check_examples(data, {"test": data.test})
    inputs.check_answers(AttackedClassifier(linear, None, 16), data.test)
    assert inputs.has_gradient(linear, data.test)


def test_images_of_another_size_are_refused():
    data = blobs()
    larger = data_of(np.zeros([2, 5, 5, 2], np.uint8), np.zeros(2, np.int32))
    # Reshaped to another number of images, or refused by the network itself.
    with pytest.raises(ValueError, match=r"of blobs.*use the data|use the data it was trained on"):
        inputs.check_classifier(linear, larger)
    strict = tf.function(linear, input_signature=[tf.TensorSpec([None, 4, 4, 2])])
    inputs.check_classifier(strict, data)
    with pytest.raises(ValueError, match=r"does not take images of blobs, \(5, 5, 2\)"):
        inputs.check_classifier(strict, larger)


def test_another_number_of_classes_is_refused():
    data = data_of(np.zeros([2, 4, 4, 2], np.uint8), np.zeros(2, np.int32), classes=7)
    with pytest.raises(ValueError, match="The classifier has 3 classes, blobs has 7 classes"):
        inputs.check_classifier(linear, data)
    with pytest.raises(ValueError, match=r"answers of shape \[2, 4, 4, 2\]"):
        inputs.check_classifier(lambda images: images, data)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label):
    data = data_of(np.zeros([2, 4, 4, 2], np.uint8), np.array([0, label], np.int32))
    with pytest.raises(ValueError, match=f"test split of blobs has 1 labels out of range, such as {label}.* 0 to 2"):
        inputs.check_examples(data, {"test": data.test})


def test_an_empty_split_is_refused():
    data = blobs()
    with pytest.raises(ValueError, match="The test split of blobs is empty"):
        inputs.check_examples(data, {"train": data.train, "test": data.validation})


def test_answers_that_are_no_numbers_are_refused():
    def broken(images):
        return linear(images) / tf.cast(images[:, :1, 0, 0] > 0, tf.float32)

    data = blobs()
    bad = np.sum(data.test.images[:, 0, 0, 0] < 128)
    with pytest.raises(ValueError, match=f"not finite .* on {bad} of 60 images"):
        inputs.check_answers(AttackedClassifier(broken, None, 16), data.test)


@pytest.mark.parametrize("scale, low, high", [(r"\[0, 1\]", 0.0, 1.0), (r"\[0, 255\]", 0.0, 255.0)])
def test_a_classifier_for_another_scale_of_pixels_is_named(scale, low, high):
    def nearest_shade(images):
        """Sure of its class where the mean shade of the image, on its own scale, is near that of the class."""
        shade = (tf.reduce_mean(images, axis=[1, 2, 3]) - low) / (high - low)
        return -tf.abs(shade[:, tf.newaxis] - tf.constant([0.2, 0.5, 0.8]))

    shades = np.random.default_rng(0).integers(0, 256, 60)
    images = np.broadcast_to(shades[:, None, None, None], [60, 4, 4, 2]).astype(np.uint8)
    labels = np.argmin(np.abs(shades[:, None] / 255 - [0.2, 0.5, 0.8]), axis=1).astype(np.int32)
    with pytest.raises(ValueError, match=f"100.0% on {scale}: it was made for that one"):
        inputs.check_answers(AttackedClassifier(nearest_shade, None, 16), Examples(images, labels))


def test_chance_on_few_images_is_not_taken_for_another_scale():
    # Untrained: always class 1 on [-1, 1], else class 0, of which there are 3 in 20 images. On [0, 255] that is better
    # by 0.15; three standard errors are 0.47.
    images, labels = np.full([20, 4, 4, 2], 128, np.uint8), np.repeat(np.array([0, 2], np.int32), [3, 17])

    def untrained(images):
        large = tf.reduce_mean(images, axis=[1, 2, 3]) > 0.4
        return tf.where(large[:, tf.newaxis], [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])

    inputs.check_answers(AttackedClassifier(untrained, None, 16), Examples(images, labels))


def test_rounding_leaves_no_gradient_path():
    assert not inputs.has_gradient(lambda images: linear(tf.round(images * 127.5)), blobs().test)
