"""A small classifier of real digits, adversarially trained in seconds, and what breaks it on purpose."""

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits at 8 px, 1,297 for training and 500 for the test."""
    found = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    images = np.round(found.images[order, ..., None] * 255 / 16).astype(np.uint8)
    labels = found.target[order].astype(np.int32)
    train, test = Examples(images[500:], labels[500:]), Examples(images[:500], labels[:500])
    return ImageData("small digits", tuple("0123456789"), train, train.select(np.arange(0)), test)


@pytest.fixture(scope="session")
def honest(digits):
    """Logits of a network with two layers, trained against PGD at epsilon 0.2."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, activation="relu", padding="same", input_shape=(8, 8, 1)),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu", padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.Adam(3e-3)
    attacker = Attacker(LInf(0.2), 3, relative_step_size=0.5)
    images = tf.constant(digits.train.images / np.float32(127.5) - 1)
    labels = tf.constant(digits.train.labels)

    @tf.function
    def step(rows):
        batch, right = tf.gather(images, rows), tf.gather(labels, rows)
        batch = attacker(batch, lambda images: class_loss(network(images), right))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(class_loss(network(batch), right))
        optimizer.apply_gradients(zip(tape.gradient(loss, network.trainable_variables), network.trainable_variables))

    random = np.random.default_rng(0)
    for _ in range(300):
        step(tf.constant(random.integers(0, len(labels), 64)))
    return lambda images: network(images, training=False)
