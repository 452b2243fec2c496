import itertools

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.layers.convolution import convolve, convolve_and_downsample
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import targeted_margin_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import L1, L2, LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.robustness.certificates import certified_block
from robgan_tf.robustness.lipschitz_margin import (
    LipschitzMargin,
    _folded,
    convolution_norm,
    features_lipschitz,
    margin_radii,
)


def exact_norm(operator, kernel, side):
    """The largest singular value of the whole matrix."""
    inputs = side * side * kernel.shape[2]
    columns = operator(tf.reshape(tf.eye(inputs), [inputs, side, side, kernel.shape[2]]), tf.constant(kernel))
    return np.linalg.norm(np.reshape(columns, [inputs, -1]), ord=2)


@pytest.mark.parametrize("side, seed", list(itertools.product([4, 8], [0, 1])))
def test_norm_of_a_convolution_is_an_upper_bound_and_close_to_the_matrixs(side, seed):
    kernel = np.random.default_rng(seed).normal(size=[3, 3, 2, 3]).astype(np.float32)
    for operator, bound in (
        (convolve, convolution_norm(kernel, side, side)),
        (convolve_and_downsample, convolution_norm(_folded(kernel), side, side, stride=2)),
    ):
        exact = exact_norm(operator, kernel, side)
        # Zeros around the image take a little from what a torus has: less on large images.
        assert exact <= bound * (1 + 1e-6) and bound < (1.35 if side == 4 else 1.15) * exact


def test_norm_by_hand():
    # All nine entries 1/9: a constant image stays a constant one. Averages of four pixels have norm 1/2.
    kernel = np.full([3, 3, 1, 1], 1 / 9, np.float32)
    assert convolution_norm(kernel, 6, 6) == pytest.approx(1.0, rel=1e-6)
    assert convolution_norm(_folded(kernel), 6, 6, stride=2) == pytest.approx(0.5, rel=1e-6)


@pytest.fixture(scope="module", params=[True, False], ids=["spectral norm", "none"])
def network(request):
    tf.random.set_seed(0)
    discriminator = Discriminator(
        3, (8, 8, 3), base_width=4, multipliers=(1, 2, 2), downsample=(True, True, False), spectral_norm=request.param
    )
    return ClassBranch(discriminator)


def test_no_gradient_is_larger_than_the_bound(network):
    bound = features_lipschitz(network.discriminator)
    images = tf.random.stateless_uniform([32, 8, 8, 3], [1, 2], -1, 1)
    with tf.GradientTape() as tape:
        tape.watch(images)
        features = network.discriminator.features(images)
    jacobians = tf.reshape(tape.batch_jacobian(features, images), [32, features.shape[1], -1])
    steepest = float(tf.reduce_max(tf.linalg.svd(jacobians, compute_uv=False)))
    assert 0 < steepest <= bound


def test_the_exported_network_has_the_same_bound(network):
    np.testing.assert_allclose(
        features_lipschitz(network.inference_copy().discriminator), features_lipschitz(network.discriminator), rtol=1e-5
    )


def test_radii_by_hand():
    # Columns (0, 0), (3, 4), (0, 1): |w0 - w1| = 5, |w0 - w2| = 1. Margins of class 0 are 2 and 1; L = 2.
    weights = np.array([[0.0, 3.0, 0.0], [0.0, 4.0, 1.0]])
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    found = margin_radii(logits, np.array([0, 0]), weights, 2.0)
    np.testing.assert_allclose(found, [min(2 / 10, 1 / 2), 0.0])


def test_the_last_layer_counts_as_it_is_applied(network):
    """Its kernel divided by sigma: how large the kernel itself is makes no difference to the logits."""
    pixels = np.random.default_rng(0).integers(0, 256, [12, 8, 8, 3]).astype(np.uint8)
    labels = np.argmax(network((pixels / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32)
    own = LipschitzMargin()(network, Examples(pixels, labels), 12, 0, L2(0.1))
    copied = LipschitzMargin()(network.inference_copy(), Examples(pixels, labels), 12, 0, L2(0.1))
    assert own["median_radius"] > 0 and own["median_radius"] == pytest.approx(copied["median_radius"], rel=1e-4)
    kernel = network.discriminator.class_head.kernel
    before = kernel.numpy()
    kernel.assign(0.01 * before)
    smaller = LipschitzMargin()(network, Examples(pixels, labels), 12, 0, L2(0.1))
    kernel.assign(before)
    # Without spectral normalisation logits and kernel shrink together, and radii stay, too: the bias is zero.
    assert smaller["median_radius"] == pytest.approx(own["median_radius"], rel=1e-4)


def test_attacks_break_nothing_within_the_certified_radius(network):
    pixels = np.random.default_rng(0).integers(0, 256, [24, 8, 8, 3]).astype(np.uint8)
    images = (pixels / 127.5 - 1).astype(np.float32)
    labels = np.argmax(network(images), axis=-1).astype(np.int32)
    bound = features_lipschitz(network.discriminator)
    weights = network.inference_copy().discriminator.class_head.kernel.numpy()
    radii = margin_radii(network(images).numpy(), labels, weights, bound)
    assert (radii > 0).all()
    for row in range(0, 24, 6):
        ball = L2(0.99 * float(radii[row]))
        attack = PGD(ball, 20, relative_step_size=0.2, loss=targeted_margin_loss, targets=2)
        one = Examples(pixels[row : row + 1], labels[row : row + 1])
        assert AttackedClassifier(network, attack, 1)(one).all()


def test_the_report_says_what_radii_mean_in_the_ball_and_what_is_vacuous():
    radii = np.array([0.0, 0.5, 1.0, 2.0])
    # sqrt(4 x 4 x 1) = 4: in l-inf 0.125, 0.25, 0.5.
    found = certified_block(radii, LInf(0.2), (4, 4, 1))
    assert (found["accuracy"], found["right"], found["vacuous"]) == (0.5, 0.75, False)
    assert (found["median_radius"], found["median_l2_radius"], found["largest_radius"]) == (0.25, 1.0, 0.5)
    assert certified_block(radii, L2(0.9), (4, 4, 1))["accuracy"] == 0.5
    assert certified_block(radii, L1(1.9), (4, 4, 1))["accuracy"] == 0.25
    assert certified_block(radii, LInf(0.6), (4, 4, 1))["vacuous"]


def test_the_certificate_of_a_network(network):
    examples = Examples(np.zeros([5, 8, 8, 3], np.uint8), np.arange(5, dtype=np.int32) % 3)
    found = LipschitzMargin()(network, examples, 2, 0, LInf(0.1))
    assert found["examples"] == 5 and found["lipschitz"] == features_lipschitz(network.discriminator)
    assert found["vacuous"] and found["accuracy"] == 0 and "features change at most" in found["about"]


def test_other_classifiers_are_refused():
    examples = Examples(np.zeros([5, 8, 8, 3], np.uint8), np.zeros(5, np.int32))
    with pytest.raises(ValueError, match="evaluate the run with --run_dir, or take RandomizedSmoothing"):
        LipschitzMargin()(lambda images: images[:, 0, :3, 0], examples, 2, 0, L2(0.1))
