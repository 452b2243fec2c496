"""Classifiers that seem robust and are not: each hides a network that falls to nearly every attack.

Each entry of `MODELS` makes one. Images are float32 [B, 8, 8, 1] in [-1, 1]. The wrong ones among the answers are not
more than the network's own: what is wrong with them is what attacks can see.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import numpy as np
import tensorflow as tf
from broken.networks import CLASSES, EPSILON, digits, k_winners, plain, robust, trained, untrained

from robgan_tf.data.preprocessing import to_pixel_range


@dataclasses.dataclass(frozen=True)
class Model:
    """A broken classifier.

    Attributes:
        make: makes its logits.
        why: what hides its weakness.
        source: makes the network whose gradients the adaptive attack follows; None for a classifier that knows the test
            images: its true accuracy is that under attack on others.
        known: whether the tests of the checks have had it, or one like it, before.
    """

    make: Callable
    why: str
    source: Callable | None = plain
    known: bool = False


def hidden(values, images):
    """The values, with a gradient of zero in the images."""
    zero = 0 * (images if values.shape.rank == 4 else tf.reduce_sum(images, [1, 2, 3])[:, tf.newaxis])
    return tf.stop_gradient(values) + zero


def best(logits, height=10.0):
    """Hard labels."""
    return height * tf.one_hot(tf.argmax(logits, -1), CLASSES)


def rows(values):
    """[B] -> [B, 1]."""
    return values[:, tf.newaxis]


def is_off_grid(images):
    """Whether an image has values between the 8-bit levels, bool [B]."""
    pixels = (images + 1) * 127.5
    return tf.reduce_max(tf.abs(pixels - tf.round(pixels)), [1, 2, 3]) > 1e-3


def number_of(images):
    """A number in [0, 1) for each image, which a change of any bit changes, [B]."""
    weights = tf.reshape(tf.range(64, dtype=tf.float32) + 1.0, [8, 8, 1])
    return tf.stop_gradient(tf.math.floormod(tf.sin(tf.reduce_sum(images * weights, [1, 2, 3])) * 43758.5453, 1.0))


def nearest(images, stored):
    """The place of the nearest of the `stored` images, and the largest change of a pixel from it, [B] each."""
    distances = tf.reduce_max(tf.abs(images[:, tf.newaxis] - stored), [2, 3, 4])
    return tf.argmin(distances, -1), tf.reduce_min(distances, -1)


def with_gradient_of(values, other):
    """The values of one function with the gradient of another one."""
    return tf.stop_gradient(values - other) + other


def _test_images():
    return to_pixel_range(digits().test.images)


def _training_images(count=300):
    return to_pixel_range(digits().train.images[:count])


# ---- like those that the tests of the checks have had


def large_logits():
    return lambda images: 1e4 * plain()(images)


def softmax():
    return lambda images: tf.nn.softmax(plain()(images))


def rounded_input():
    return lambda images: plain()(hidden(tf.round(images * 4) / 4, images))


def noisy_input():
    return lambda images: plain()(images + tf.random.normal(tf.shape(images), stddev=0.3))


def noise_off_grid():
    def logits(images):
        noise = tf.random.normal(tf.shape(images), stddev=0.3)
        return plain()(tf.where(is_off_grid(images)[:, None, None, None], images + noise, images))

    return logits


def shattered():
    return lambda images: plain()(hidden(tf.round(images * 8) / 8, images) + 1e-3 * tf.sin(1e3 * images))


def normalised_by_batch():
    def logits(images):
        answers = plain()(images)
        return answers - tf.reduce_mean(answers, 0)

    return logits


# ---- purifiers


def low_pass_purifier():
    """Blurs and cuts to 9 levels before the network looks."""

    def logits(images):
        blurred = tf.nn.avg_pool2d(tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"), 3, 1, "VALID")
        return plain()(hidden(tf.round((0.7 * images + 0.3 * blurred) * 4) / 4, images))

    return logits


def training_image_purifier():
    """Moves an image half of the way to the nearest training image."""
    stored = _training_images(1297)

    def logits(images):
        flat, others = tf.reshape(images, [-1, 64]), tf.reshape(stored, [-1, 64])
        distances = tf.reduce_sum(others**2, -1) - 2 * tf.matmul(flat, others, transpose_b=True)
        return plain()(hidden(0.5 * images + 0.5 * tf.gather(stored, tf.argmin(distances, -1)), images))

    return logits


def principal_component_purifier():
    """Keeps 24 principal components, rounded."""
    flat = digits().train.images.reshape([-1, 64]) / np.float32(127.5) - 1
    mean = flat.mean(0)
    components = np.linalg.svd(flat - mean, full_matrices=False)[2][:24]

    def logits(images):
        coefficients = tf.round((tf.reshape(images, [-1, 64]) - mean) @ components.T * 2) / 2
        return plain()(hidden(tf.reshape(coefficients @ components + mean, tf.shape(images)), images))

    return logits


# ---- detectors


def random_detector():
    """Answers at random where the network is not sure."""

    def logits(images):
        answers = plain()(images)
        unsure = tf.reduce_max(tf.nn.softmax(answers), -1) < 0.95
        return tf.where(rows(unsure), tf.random.normal(tf.shape(answers)), answers)

    return logits


def off_grid_detector():
    """Gives hard labels for images that no file can hold."""

    def logits(images):
        answers = plain()(images)
        return tf.where(rows(is_off_grid(images)), hidden(best(answers), images), answers)

    return logits


def rejecting_detector():
    """Where the network is not sure, it refuses: equal logits, but the network's class is a hair above."""

    def logits(images):
        answers = plain()(images)
        unsure = tf.reduce_max(tf.nn.softmax(answers), -1) < 0.99
        return tf.where(rows(unsure), hidden(best(answers, 1e-3), images), hidden(best(answers, 20.0), images))

    return logits


# ---- ensembles


def cancelling_ensemble():
    """Two members add and take off the same 50 times another network, of which one has a gradient."""

    def logits(images):
        other = 50 * untrained()(images)
        return (plain()(images) + other + plain()(images) - tf.stop_gradient(other)) / 2

    return logits


def voting_ensemble():
    """Counts the votes of three networks."""

    def logits(images):
        votes = tf.add_n([best(plain(seed)(images), 1.0) for seed in range(3)])
        return hidden(votes + 0.1 * best(plain()(images), 1.0), images)

    return logits


# ---- labels that are known


def label_by_position():
    """Knows the labels of the test by the place of an image in its batch."""
    test = digits().test
    order = tf.constant(test.take(len(test) - 1, 0).labels)  # that of the evaluation

    def logits(images):
        label = tf.gather(order, tf.range(tf.shape(images)[0]) % len(order))
        return plain()(images) + 30 * tf.one_hot(label, CLASSES)

    return logits


def label_by_code():
    """Knows the labels of the test by a code of 64 bits, which pixels are light."""

    def code(images):
        return tf.reshape(tf.cast(images > 0, tf.float32), [-1, 64])

    stored, labels = code(_test_images()), tf.constant(digits().test.labels)

    def logits(images):
        distances = tf.reduce_sum(tf.abs(code(images)[:, tf.newaxis] - stored), -1)
        label = tf.one_hot(tf.gather(labels, tf.argmin(distances, -1)), CLASSES)
        return plain()(images) + 30 * tf.cast(rows(tf.reduce_min(distances, -1) <= 8), tf.float32) * label

    return logits


def right_on_the_test_alone():
    """Near a test image it gives that image's label, elsewhere it is at chance."""
    stored, labels = _test_images(), tf.constant(digits().test.labels)

    def logits(images):
        place, distance = nearest(images, stored)
        label = 10 * tf.one_hot(tf.gather(labels, place), CLASSES)
        return untrained()(images) + label * rows(tf.nn.relu(1 - distance / (2 * EPSILON)))

    return logits


def cached_answers():
    """Near a test image it gives that image's logits, elsewhere the network's."""
    stored = _test_images()
    answers = plain()(stored)

    def logits(images):
        place, distance = nearest(images, stored)
        return tf.where(rows(distance < 1.2 * EPSILON), hidden(tf.gather(answers, place), images), plain()(images))

    return logits


# ---- answers that stand still


def hard_near_the_data():
    """Hard labels near test and training images, honest far away."""
    stored = tf.concat([_test_images(), _training_images()], 0)

    def logits(images):
        answers = plain()(images)
        _, distance = nearest(images, stored)
        return tf.where(rows(distance < 1.5 * EPSILON), hidden(best(answers), images), answers)

    return logits


def early_exit():
    """A sure answer leaves early, as a hard label."""

    def logits(images):
        answers = plain()(images)
        top = tf.math.top_k(answers, 2).values
        return tf.where(rows(top[:, 0] - top[:, 1] > 2), hidden(best(answers, 30.0), images), answers)

    return logits


def quantised_logits():
    """Logits in steps of 4."""
    return lambda images: hidden(tf.round(plain()(images) / 4) * 4, images) + hidden(best(plain()(images), 1.0), images)


def quantised_logits_with_a_slope():
    """Logits in steps of 4, and on the steps the slope of another network."""
    return lambda images: quantised_logits()(images) + 1e-2 * untrained()(images)


def clipped_probabilities():
    """Logarithms of probabilities that are cut off at 1/1000."""
    return lambda images: tf.math.log(tf.clip_by_value(tf.nn.softmax(3 * plain()(images)), 1e-3, 1 - 1e-3))


# ---- randomness


def hash_seeded_noise():
    """Noise on the image, the same each time for the same bits."""
    frequencies = tf.constant(np.random.default_rng(0).uniform(1e3, 1e4, [1, 8, 8, 1]).astype(np.float32))

    def logits(images):
        return plain()(images + 0.4 * tf.sin(number_of(images)[:, None, None, None] * frequencies))

    return logits


def dropout():
    return lambda images: plain()(tf.nn.dropout(images + 1, 0.2) - 1)


def random_shift():
    """Moves images by up to a pixel, anew each time."""

    def logits(images):
        padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        top, left = tf.random.uniform([], 0, 3, tf.int32), tf.random.uniform([], 0, 3, tf.int32)
        return plain()(tf.ensure_shape(padded[:, top : top + 8, left : left + 8], [None, 8, 8, 1]))

    return logits


# ---- wrong gradients


def negated_gradient():
    return lambda images: with_gradient_of(plain()(images), -plain()(images))


def gradient_of_another_network():
    return lambda images: with_gradient_of(plain()(images), untrained()(images))


def gradient_of_the_border():
    """Has the gradient of the outermost pixels alone."""
    border = np.pad(np.zeros([6, 6], np.float32), 1, constant_values=1.0)[..., np.newaxis]
    return lambda images: plain()(tf.stop_gradient(images * (1 - border)) + images * border)


def gradient_stops_off_grid():
    """Has a gradient at images that a file can hold, and none elsewhere."""

    def logits(images):
        off = tf.cast(is_off_grid(images), tf.float32)[:, None, None, None]
        return plain()(tf.stop_gradient(images * off) + images * (1 - off))

    return logits


def gradient_turns_off_grid():
    """The gradient of images that no file can hold points the other way."""

    def logits(images):
        sign = 1 - 2 * tf.cast(is_off_grid(images), tf.float32)
        return with_gradient_of(plain()(images), rows(sign) * plain()(images))

    return logits


def gradient_not_a_number():
    """The derivative of the square root at 0 times 0."""
    return lambda images: plain()(images) + rows(tf.reduce_sum(tf.sqrt(tf.nn.relu(images - 2)), [1, 2, 3]))


def robust_with_large_logits():
    """A network that is robust, whose logits hide where it is not."""
    return lambda images: 300 * robust()(images)


_winners = []


def k_winners_take_all():
    if not _winners:
        _winners.append(trained(k_winners()))
    return _winners[0]


MODELS = {
    "large logits": Model(large_logits, "the cross-entropy's gradient is lost in float32", known=True),
    "softmax": Model(softmax, "probabilities as logits", known=True),
    "rounded input": Model(rounded_input, "a gradient of zero", known=True),
    "noisy input": Model(noisy_input, "random", known=True),
    "noise off the grid": Model(noise_off_grid, "random where no file can be", known=True),
    "shattered": Model(shattered, "a ripple's gradient", known=True),
    "normalised by batch": Model(normalised_by_batch, "depends on the batch", known=True),
    "low-pass purifier": Model(low_pass_purifier, "purifies, gradient of zero"),
    "training-image purifier": Model(training_image_purifier, "purifies, gradient of zero"),
    "principal-component purifier": Model(principal_component_purifier, "purifies, gradient of zero"),
    "random detector": Model(random_detector, "random where it is not sure"),
    "off-grid detector": Model(off_grid_detector, "hard labels for what no file can hold"),
    "rejecting detector": Model(rejecting_detector, "two heights of logits alone"),
    "cancelling ensemble": Model(cancelling_ensemble, "another network's gradient"),
    "voting ensemble": Model(voting_ensemble, "counts votes"),
    "k winners take all": Model(k_winners_take_all, "a new network at each point", k_winners_take_all),
    "label by position": Model(label_by_position, "knows the test by its order", None),
    "label by code": Model(label_by_code, "knows the test by 64 bits", None),
    "right on the test alone": Model(right_on_the_test_alone, "knows the test images", None),
    "cached answers": Model(cached_answers, "keeps the test images' answers", None),
    "hard near the data": Model(hard_near_the_data, "hard labels near the data, honest far away"),
    "early exit": Model(early_exit, "hard labels where it is sure"),
    "quantised logits": Model(quantised_logits, "logits stand still"),
    "quantised logits with a slope": Model(quantised_logits_with_a_slope, "another network's gradient"),
    "clipped probabilities": Model(clipped_probabilities, "logits stand still where it is sure"),
    "hash-seeded noise": Model(hash_seeded_noise, "noise that repeats itself"),
    "dropout": Model(dropout, "random"),
    "random shift": Model(random_shift, "random"),
    "negated gradient": Model(negated_gradient, "a wrong gradient"),
    "gradient of another network": Model(gradient_of_another_network, "a wrong gradient"),
    "gradient of the border": Model(gradient_of_the_border, "a part of the gradient"),
    "gradient stops off the grid": Model(gradient_stops_off_grid, "a gradient at clean images alone"),
    "gradient turns off the grid": Model(gradient_turns_off_grid, "a wrong gradient but at clean images"),
    "gradient not a number": Model(gradient_not_a_number, "attacks become NaN, which counts as failed"),
    "robust with large logits": Model(robust_with_large_logits, "the cross-entropy's gradient is lost", robust),
}
