"""Adversarial weight perturbation against a computation by hand, and what it leaves behind."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from small_stages import BATCH, CLASSES, SHAPE, STEPS, batches, make_attacker, train, weights

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.players.classifiers.keras_classifier import KerasClassifier
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.objectives import Trades
from robgan_tf.training.weight_perturbation import AdversarialWeightPerturbation


def network(batch_norm=False):
    layers = keras.layers
    middle = [layers.Conv2D(3, 3), BatchNorm()] if batch_norm else []
    return KerasClassifier(keras.Sequential([layers.InputLayer(SHAPE), *middle, layers.Flatten(), layers.Dense(3)]))


def make(rate=0.1, gamma=0.2, batch_norm=False, **options):
    keras.utils.set_random_seed(1)
    return FineTuning(
        network(batch_norm),
        None,
        num_examples=80,
        seed=7,
        epochs=1,
        batch_size=BATCH * STEPS,
        weight_perturbation=gamma and AdversarialWeightPerturbation(gamma),
        optimizer=lambda learning_rate: keras.optimizers.SGD(rate),
        **{"attacker": None, **options},
    )


def by_hand(kernel, bias, images, labels, rate, gamma):
    """A step of softmax regression: d CE / dW = x' (p - y) / B, taken at the perturbed kernel."""
    x, y = images.reshape(len(images), -1).astype(np.float64), np.eye(CLASSES)[labels]

    def gradients(kernel):
        errors = (scipy.special.softmax(x @ kernel + bias, axis=1) - y) / len(x)
        return x.T @ errors, errors.sum(0)

    gradient, _ = gradients(kernel)
    worst = kernel + gamma * np.linalg.norm(kernel) * gradient / np.linalg.norm(gradient)
    gradient, bias_gradient = gradients(worst)
    return kernel - rate * gradient, bias - rate * bias_gradient


@pytest.mark.parametrize("on", ["one device", "two replicas", "in parts"])
def test_a_step_takes_the_gradient_at_the_worst_kernel_and_leaves_biases(on, request):
    strategy = request.getfixturevalue("two_replicas") if on == "two replicas" else tf.distribute.get_strategy()
    with strategy.scope():
        stage = make(accumulation=2 if on == "in parts" else 1)
    kernel, bias = (weight.astype(np.float64) for weight in weights(stage.classifier))
    images, labels = next(batches(1).as_numpy_iterator())
    train(stage, 1)
    expected = by_hand(kernel, bias, images, labels, rate=0.1, gamma=0.2)
    for found, value in zip(weights(stage.classifier), expected):
        np.testing.assert_allclose(found, value, atol=1e-5)
    # It is not the step without.
    plain = make(gamma=None)
    train(plain, 1)
    assert np.abs(weights(plain.classifier)[0] - expected[0]).max() > 1e-3


def test_weights_are_restored_bit_by_bit_and_statistics_move_by_one_batch():
    def step(gamma):
        stage = make(0.0, gamma, batch_norm=True, attacker=make_attacker(random_start=True), objective=Trades())
        network = stage.classifier
        before = [weight.numpy().copy() for weight in network.class_variables]
        train(stage, 1)
        return before, [weight.numpy() for weight in network.class_variables], network.non_trainable_variables

    before, after, perturbed = step(0.3)
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)
    # Next to w the statistics are those of a step without: two passes of TRADES, not four.
    _, _, nearly = step(1e-7)
    _, _, plain = step(None)
    assert len(plain) == 2
    for one, other, far in zip(nearly, plain, perturbed):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(far.numpy() - other.numpy()).max() > 1e-3


def test_where_the_gradient_is_no_number_nothing_moves():
    weights = [tf.constant([[3.0, 4.0]]), tf.constant([[1.0, 1.0]]), tf.constant([[2.0]]), tf.constant([5.0])]
    gradients = [tf.constant([[0.0, 2.0]]), tf.constant([[np.inf, 1.0]]), tf.constant([[0.0]]), tf.constant([1.0])]
    moves = AdversarialWeightPerturbation(gamma=0.1).directions(weights, gradients)
    for found, expected in zip(moves, ([[0, 0.5]], [[0, 0]], [[0]], [0])):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_no_perturbation_is_refused():
    with pytest.raises(
        ValueError, match=r"FineTuning.weight_perturbation must be .* such as @awp\(\), .* or None, got 0.1"
    ):
        FineTuning(network(), None, 80, attacker=None, epochs=1, weight_perturbation=0.1)
    with pytest.raises(ValueError, match="awp.gamma must be a number > 0, got 0"):
        AdversarialWeightPerturbation(0)
