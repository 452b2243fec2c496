"""Any Keras network as a classifier."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.players.classifiers.keras_classifier import KerasClassifier, as_classifier

SHAPE, CLASSES = (8, 8, 3), 4


def sequential(*last):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Dropout(0.5), *last])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(CLASSES)

    def call(self, images):
        return self.dense(keras.layers.Flatten()(images))


def test_it_answers_as_the_network_in_inference_and_in_training_mode():
    network = sequential(keras.layers.Dense(CLASSES))
    classifier = KerasClassifier(network)
    images = tf.random.stateless_normal([5, *SHAPE], [0, 0])
    assert (classifier.image_shape, classifier.num_classes) == (SHAPE, CLASSES)
    np.testing.assert_array_equal(classifier(images), network(images, training=False))
    assert not np.allclose(classifier(images, training=True), network(images, training=False))
    assert [id(one) for one in classifier.trainable_variables] == [id(one) for one in network.trainable_variables]


def test_a_subclassed_model_is_told_its_image_shape():
    with pytest.raises(ValueError, match=r"say KerasClassifier\(network, image_shape"):
        KerasClassifier(Subclassed())
    classifier = KerasClassifier(Subclassed(), SHAPE)
    assert classifier.num_classes == CLASSES and len(classifier.trainable_variables) == 2


def test_another_one_has_weights_of_its_own_and_a_copy_answers_alike():
    classifier = KerasClassifier(sequential(keras.layers.Dense(CLASSES)))
    images = tf.random.stateless_normal([5, *SHAPE], [0, 0])
    copy = classifier.inference_copy()
    np.testing.assert_array_equal(copy(images), classifier(images))
    copy.trainable_variables[0].assign_add(tf.ones_like(copy.trainable_variables[0]))
    assert not np.allclose(copy(images), classifier(images))


def test_a_network_that_can_not_be_made_again_is_named():
    class Closed(Subclassed):
        def get_config(self):
            raise NotImplementedError

    with pytest.raises(ValueError, match="can't be made a second time.*average_decay = 0"):
        KerasClassifier(Closed(), SHAPE).another()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sequential(keras.layers.Dense(CLASSES, activation="softmax")), "ends in a softmax"),
        (lambda: sequential(keras.layers.Dense(CLASSES), keras.layers.Softmax()), "ends in a softmax"),
        (lambda: keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(4, 3)]), "answers with shape"),
        (lambda: keras.Sequential([keras.Input([None, None, 3]), keras.layers.Conv2D(4, 3)]), "give it an Input"),
        (lambda: keras.Sequential([keras.layers.Dense(CLASSES)]), "images of unknown shape: give it an Input"),
        (lambda: keras.layers.Dense(CLASSES), "must be a model of Keras 2, got <.*Dense"),
        (lambda: None, "must be a model of Keras 2, got None"),
    ],
)
def test_what_is_no_classifier_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        as_classifier(make())


def test_a_model_of_keras_3_is_refused_with_the_way_out():
    found = importlib.util.find_spec("keras") and __import__("keras")
    if not found or found.__version__.startswith("2."):
        pytest.skip("Keras 3 is not installed")
    network = found.Sequential([found.Input(SHAPE), found.layers.Flatten(), found.layers.Dense(CLASSES)])
    with pytest.raises(ValueError, match="got one of Keras 3: build it of `from robgan_tf import keras`"):
        as_classifier(network)


def test_a_classifier_stays_as_it_is():
    classifier = KerasClassifier(sequential(keras.layers.Dense(CLASSES)))
    assert as_classifier(classifier) is classifier and isinstance(classifier, Classifier)
