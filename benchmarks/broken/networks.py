"""Digits at 8 px and small networks that classify them, trained in seconds: what broken classifiers are made of."""

from __future__ import annotations

import functools

import numpy as np
import sklearn.datasets
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import LInf

EPSILON = 0.2
CLASSES = 10


@functools.cache
def digits() -> ImageData:
    """scikit-learn's digits, 1,297 for training and 500 for the test."""
    found = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    images = np.round(found.images[order, ..., None] * 255 / 16).astype(np.uint8)
    labels = found.target[order].astype(np.int32)
    train, test = Examples(images[500:], labels[500:]), Examples(images[:500], labels[:500])
    return ImageData("small digits", tuple("0123456789"), train, train.select(np.arange(0)), test)


def convolutional(**_) -> keras.Model:
    """Two convolutions and a dense layer."""
    return keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, activation="relu", padding="same", input_shape=(8, 8, 1)),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu", padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def usual_keras() -> keras.Model:
    """Rescaling, batch norm and dropout, as Keras' examples have them."""
    return keras.Sequential(
        [
            keras.layers.Rescaling(0.5, 0.5, input_shape=(8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def smooth() -> keras.Model:
    """Dense layers with tanh."""
    return keras.Sequential(
        [
            keras.layers.Flatten(input_shape=(8, 8, 1)),
            keras.layers.Dense(64, activation="tanh"),
            keras.layers.Dense(CLASSES),
        ]
    )


def linear() -> keras.Model:
    """Softmax regression."""
    return keras.Sequential([keras.layers.Flatten(input_shape=(8, 8, 1)), keras.layers.Dense(CLASSES)])


def k_winners() -> keras.Model:
    """Of each layer only the largest activations of an image are kept (Xiao et al., ICLR 2020)."""

    def keep(share):
        def largest(values):
            flat = tf.reshape(values, [-1, int(np.prod(values.shape[1:]))])
            least = tf.math.top_k(flat, max(int(share * flat.shape[1]), 1)).values[:, -1:]
            return tf.reshape(tf.where(flat >= least, flat, 0.0), tf.shape(values))

        return keras.layers.Lambda(largest)

    return keras.Sequential(
        [
            keras.layers.Conv2D(32, 3, padding="same", input_shape=(8, 8, 1)),
            keep(0.05),
            keras.layers.Conv2D(64, 3, strides=2, padding="same"),
            keep(0.05),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


def trained(network: keras.Model, adversarially: bool = False, updates: int = 400, seed: int = 0):
    """Trains a network on the digits; returns its logits, images float32 [B, 8, 8, 1] in [-1, 1] -> [B, 10]."""
    optimizer = keras.optimizers.Adam(3e-3)
    attacker = PGD(LInf(EPSILON), 3, relative_step_size=0.5)
    train = digits().train
    images, labels = to_pixel_range(train.images), tf.constant(train.labels)

    @tf.function
    def step(rows):
        batch, right = tf.gather(images, rows), tf.gather(labels, rows)
        if adversarially:
            batch = attacker(batch, lambda images: class_loss(network(images), right))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(class_loss(network(batch, training=True), right))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))

    random = np.random.default_rng(seed)
    for _ in range(updates):
        step(tf.constant(random.integers(0, len(labels), 64)))
    return lambda images: network(images, training=False)


@functools.cache
def plain(seed: int = 0):
    """Logits of a network that was trained on clean images: nearly all of them right, and half of them under attack."""
    keras.utils.set_random_seed(seed)
    return trained(convolutional(), seed=seed)


@functools.cache
def robust():
    """Logits of a network that was trained on attacked images."""
    keras.utils.set_random_seed(0)
    return trained(convolutional(), adversarially=True)


@functools.cache
def untrained(seed: int = 1):
    """Logits of a network as it is initialized: at chance."""
    keras.utils.set_random_seed(seed)
    network = convolutional()
    return lambda images: network(images)
