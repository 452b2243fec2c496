"""The objectives of fine-tuning against computations by hand, and their gradients against finite differences."""

import gin
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.layers import convolution
from robgan_tf.losses import divergence, misclassification_loss
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier
from robgan_tf.players.classifiers.convnext import ConvNeXt
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
from robgan_tf.players.classifiers.vgg import VGG16
from robgan_tf.training.objectives import Adversarial, LipschitzRegularised, Mart, Trades

LABELS = tf.constant([0, 2, 1, 1])
IMAGES, ATTACKED = (
    tf.constant(np.random.default_rng(seed).uniform(-1, 1, [4, 8, 8, 3]), tf.float32) for seed in (0, 1)
)
ATTACKER = Attacker(LInf(0.1), steps=2, relative_step_size=0.75, random_start=True)


class Linear(Classifier):
    """Logits W'x: its derivatives are known."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, use_bias=False)
        self(IMAGES)

    def call(self, images, training=False):
        return self.dense(tf.reshape(images, [-1, 8 * 8 * 3]))


def log_softmax(logits):
    return scipy.special.log_softmax(np.asarray(logits, np.float64), axis=-1)


def cross_entropy(logits):
    return -log_softmax(logits)[np.arange(4), LABELS]


def kl(logits, other):
    logs, others = log_softmax(logits), log_softmax(other)
    return (np.exp(logs) * (logs - others)).sum(-1)


def test_adversarial_is_the_cross_entropy_of_attacked_images_and_attacks_with_it():
    network, objective = Linear(), Adversarial()
    loss, logits = objective.loss(network, IMAGES, ATTACKED, LABELS, training=True)
    np.testing.assert_array_equal(logits, network(ATTACKED))
    np.testing.assert_allclose(loss, cross_entropy(network(ATTACKED)), rtol=1e-5)
    np.testing.assert_array_equal(objective.attack(network, IMAGES, LABELS)(ATTACKED), loss)


def test_adversarial_attacks_with_another_loss_from_gin_and_learns_with_the_cross_entropy():
    gin.parse_config("adversarial.attack_loss = @margin_loss")
    network, objective = Linear(), Adversarial()
    np.testing.assert_array_equal(
        objective.attack(network, IMAGES, LABELS)(ATTACKED), margin_loss(network(ATTACKED), LABELS)
    )
    loss, _ = objective.loss(network, IMAGES, ATTACKED, LABELS, training=True)
    np.testing.assert_allclose(loss, cross_entropy(network(ATTACKED)), rtol=1e-5)


def test_trades_is_the_cross_entropy_of_clean_images_and_beta_times_the_divergence():
    network, objective = Linear(), Trades(beta=6.0)
    loss, logits = objective.loss(network, IMAGES, ATTACKED, LABELS, training=True)
    clean, attacked = network(IMAGES), network(ATTACKED)
    np.testing.assert_allclose(loss, cross_entropy(clean) + 6 * kl(clean, attacked), rtol=1e-5)
    np.testing.assert_array_equal(logits, attacked)
    np.testing.assert_allclose(objective.attack(network, IMAGES, LABELS)(ATTACKED), kl(clean, attacked), rtol=1e-5)


def test_both_answers_of_trades_have_a_gradient():
    # d KL(p || q) / d z_q = q - p;  d KL(p || q) / d z_p = p (log p - log q - KL).
    clean, attacked = (tf.constant(np.random.default_rng(seed).normal(size=[4, 3]), tf.float32) for seed in (2, 3))
    with tf.GradientTape() as tape:
        tape.watch([clean, attacked])
        found = divergence(clean, attacked)
    in_clean, in_attacked = tape.gradient(found, [clean, attacked])
    logs, others = log_softmax(clean), log_softmax(attacked)
    np.testing.assert_allclose(in_attacked, np.exp(others) - np.exp(logs), atol=1e-6)
    expected = np.exp(logs) * (logs - others - kl(clean, attacked)[:, np.newaxis])
    np.testing.assert_allclose(in_clean, expected, atol=1e-6)


def test_mart_is_the_boosted_cross_entropy_and_the_divergence_weighted_by_misclassification():
    network, objective = Linear(), Mart(beta=5.0)
    loss, logits = objective.loss(network, IMAGES, ATTACKED, LABELS, training=True)
    clean, attacked = np.exp(log_softmax(network(IMAGES))), np.exp(log_softmax(network(ATTACKED)))
    expected = []
    for label, p, q in zip(np.asarray(LABELS), clean, attacked):
        likeliest = max(q[k] for k in range(3) if k != label)
        boosted = -np.log(q[label]) - np.log(1 - likeliest)
        expected.append(boosted + 5 * (p * np.log(p / q)).sum() * (1 - p[label]))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(logits, network(ATTACKED))
    np.testing.assert_allclose(
        objective.attack(network, IMAGES, LABELS)(ATTACKED), cross_entropy(network(ATTACKED)), rtol=1e-5
    )


def test_mart_has_finite_gradients_where_the_network_is_sure():
    # The authors' code would take the logarithm of 1.0001 - 1.
    clean, attacked = tf.constant([[0.0, 80.0, -80.0]]), tf.constant([[-80.0, 80.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([clean, attacked])
        loss = misclassification_loss(clean, attacked, tf.constant([0]), beta=5.0)
    # -log p_0 = 160;  1 - p_1 = p_0 + p_2 = e^-160 + e^-80;  KL = log(1/1) = 0 but for e^-80.
    np.testing.assert_allclose(loss, [160 + 80], rtol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, [clean, attacked]))


def test_the_lipschitz_value_of_a_linear_network_by_hand():
    # d CE / dx = W (softmax - one-hot).
    network = Linear()
    loss, logits = LipschitzRegularised(weight=2.0).loss(network, IMAGES, ATTACKED, LABELS, training=True)
    kernel = np.asarray(network.dense.kernel, np.float64)
    gradients = (np.exp(log_softmax(logits)) - np.eye(3)[LABELS]) @ kernel.T
    expected = cross_entropy(logits) + 2 * np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_flat_loss_has_no_lipschitz_value_and_a_gradient_of_numbers():
    network = Linear()
    network.dense.kernel.assign(tf.zeros_like(network.dense.kernel))
    with tf.GradientTape() as tape:
        loss, _ = LipschitzRegularised().loss(network, IMAGES, IMAGES, LABELS, training=True)
    np.testing.assert_allclose(loss, [np.log(3)] * 4, rtol=1e-6)
    assert np.isfinite(tape.gradient(loss, network.dense.kernel)).all()


@pytest.mark.parametrize("kind", ["class branch", PreActResNet18, VGG16])
def test_second_derivatives_through_the_networks_are_those_of_plain_convolutions(kind, make_discriminator):
    network = ClassBranch(make_discriminator()) if kind == "class branch" else kind(3, (8, 8, 3), base_width=4)
    (special,) = (
        module for module in network.submodules if getattr(module, "convolve", None) is convolution.convolve_image
    )

    def gradients():
        with tf.GradientTape() as tape:
            loss, _ = LipschitzRegularised(weight=3.0).loss(network, IMAGES, ATTACKED, LABELS, training=False)
        return tape.gradient(loss, network.class_variables)

    found, compiled = gradients(), tf.function(gradients)()
    special.convolve = convolution.convolve
    for plain, one, other, variable in zip(gradients(), found, compiled, network.class_variables):
        scale = float(tf.reduce_max(tf.abs(plain))) + 1e-3
        np.testing.assert_allclose(one, plain, atol=1e-4 * scale, err_msg=variable.name)  # float32, many layers
        np.testing.assert_allclose(other, plain, atol=1e-4 * scale, err_msg=variable.name)


def test_gradients_of_the_first_convolution_are_those_of_a_plain_one():
    """`convolve_image` has a gradient of its own: so must its second derivative, as tf.nn.conv2d has."""
    kernel = tf.random.normal([3, 3, 3, 4], seed=1)

    def second(convolve):
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as tape:
                tape.watch(IMAGES)
                total = tf.reduce_sum(tf.sin(convolve(IMAGES, kernel)))
            norms = tf.norm(tape.gradient(total, IMAGES))
        return norms, outer.gradient(norms, kernel)

    for function in (second, tf.function(second)):
        for found, expected in zip(function(convolution.convolve_image), second(convolution.convolve)):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together_is_refused(make_discriminator):
    network = Linear()
    no_start = Attacker(LInf(0.1), steps=2, relative_step_size=0.75)
    for attacker in (None, no_start):
        with pytest.raises(ValueError, match="needs an attacker with a random start"):
            Trades().check(network, attacker)
    Trades().check(network, ATTACKER)
    with pytest.raises(ValueError, match="set Discriminator.recompute = False"):
        LipschitzRegularised().check(ClassBranch(make_discriminator(recompute=True)), None)
    with pytest.raises(ValueError, match="set ConvNeXt.recompute = False"):
        LipschitzRegularised().check(ConvNeXt(3, (4, 4, 3), (1,), (2,), recompute=True), None)
    LipschitzRegularised().check(ClassBranch(make_discriminator()), None)
    with pytest.raises(ValueError, match="trades.beta must be a number > 0, got -1"):
        Trades(beta=-1)
    with pytest.raises(ValueError, match=r"@mart\(\) needs an attacker"):
        Mart().check(network, None)
    with pytest.raises(ValueError, match="mart.beta must be a number > 0, got 0"):
        Mart(beta=0)
    with pytest.raises(ValueError, match="lipschitz_regularised.weight must be a number > 0, got 0"):
        LipschitzRegularised(weight=0)
