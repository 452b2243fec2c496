"""The JAX peer of the benchmark does the arithmetic of this project; skipped where JAX is not installed."""

import numpy as np
import pytest
import tensorflow as tf

jax = pytest.importorskip("jax")

from measures.jax_baseline import Peer  # noqa: E402
from measures.peers import start_framework  # noqa: E402

from robgan_tf.run import devices  # noqa: E402
from robgan_tf.training.randomness import generator_inputs, step_seeds  # noqa: E402
from tests.benchmarks.stages import (  # noqa: E402
    BATCH,
    EPSILON,
    NETWORKS,
    RATE,
    ROUNDING,
    STEPS,
    assert_close,
    make_stage,
    our_evaluation,
    some_images,
)

start_framework("jax", threads=1)  # small networks need no more


def make_peer(stage, **options):
    return Peer.like(stage.generator, stage.discriminator, epsilon=EPSILON, learning_rate=RATE, **options)


def to_numpy(*tensors):
    return tuple(tensor.numpy() for tensor in tensors)


def verdict(peer, images):
    return jax.jit(peer.program.verdict)(peer.state, images)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_agree(network):
    stage = make_stage(network)
    peer = make_peer(stage)
    images, _ = some_images(network, 2)
    for theirs, ours in zip(verdict(peer, images), stage.discriminator(images)):
        assert_close(theirs, ours, ROUNDING)
    noise, labels = generator_inputs([0, 1], 3, 128, 5)
    generated, _ = jax.jit(peer.program.generate)(peer.state.generator.weights, *to_numpy(noise, labels))
    assert_close(generated, stage.generator((noise, labels), training=True), 5 * ROUNDING)


def test_attacks_agree():
    stage = make_stage()
    peer = make_peer(stage)
    images, labels = some_images()
    theirs = peer.attack(peer.images(images), peer.labels(labels))
    ours = tf.function(stage.attack, autograph=False)(tf.constant(images), tf.constant(labels), [0, 0]).numpy()
    assert np.abs(ours - images).max() > 0.99 * EPSILON
    # A step goes by the gradient's sign. Where the gradient is zero but for rounding, it may go the other way.
    assert np.mean(np.abs(theirs - ours) > ROUNDING) < 1e-3


def test_evaluations_agree():
    stage = make_stage()
    peer = make_peer(stage)
    images, labels, ours = our_evaluation(stage)
    theirs = np.asarray(peer.evaluate_pgd(peer.images(images), peer.labels(labels)))
    assert 0 < ours.sum() < 64
    assert np.sum(ours != theirs) <= 1


def weights(peer):
    """The weights of both networks, but for those of no effect: biases in front of a batch norm."""
    players = {"generator": peer.state.generator, "discriminator": peer.state.discriminator}
    named = {
        (player, layer, name): weight
        for player, state in players.items()
        for layer, numbers in state.weights.items()
        for name, weight in numbers.items()
    }
    effective = [
        weight.ravel()
        for (player, layer, name), weight in named.items()
        if not (player == "generator" and layer.startswith("block") and name == "bias")
    ]
    return np.concatenate(effective)


def assert_trees_close(theirs, ours, **tolerance):
    assert jax.tree.structure(theirs) == jax.tree.structure(ours)
    for one, other in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours)):
        np.testing.assert_allclose(one, other, **tolerance)


def test_training_steps_agree():
    """A generator update and two discriminator updates, of the same images, noise and labels.

    With beta_1 = 0 Adam moves every weight by about the learning rate, however small its gradient: one that is nothing
    but rounding makes a step of random sign. So a weight in a thousand may differ by more than a hundredth of a step,
    and biases in front of a batch norm, whose gradient is zero, make such steps all the time.
    """
    stage = make_stage("16px")
    peer = make_peer(stage)
    images, labels = some_images("16px", BATCH * STEPS)
    before = weights(peer)
    generator_seed, *seeds = step_seeds(stage.seed, stage.step, 1 + 2 * STEPS)
    inputs = [to_numpy(*generator_inputs(seed, BATCH, 128, 5)) for seed in (generator_seed, *seeds[1::2])]
    theirs = peer.train_step(images, labels, STEPS, inputs)
    ours = stage.train_step((tf.constant(images), tf.constant(labels)))
    for name, loss in theirs.items():
        assert_close(loss, ours[name], ROUNDING)

    updated = make_peer(stage)
    assert np.median(np.abs(weights(peer) - before)) > 0.5 * RATE
    differences = np.abs(weights(peer) - weights(updated))
    assert np.mean(differences > 0.01 * RATE) < 1e-3 and differences.max() < 2.2 * STEPS * RATE
    assert_trees_close(peer.state.us, updated.state.us, rtol=0, atol=RATE)
    # The means follow the idle biases.
    assert_trees_close(peer.state.statistics, updated.state.statistics, rtol=ROUNDING, atol=2 * STEPS * RATE)
    average = Peer.like(stage.average_generator, stage.discriminator).state.generator.weights
    assert_trees_close(peer.state.average, average, rtol=0, atol=2.2 * RATE)  # idle biases too


def test_bfloat16_agrees_to_its_rounding():
    with devices.precision("mixed_bfloat16"):
        stage = make_stage()
    images, labels = some_images()
    float32, peer = make_peer(stage), make_peer(stage, precision="mixed_bfloat16")
    exact, theirs = (np.asarray(verdict(one, images)[1]) for one in (float32, peer))
    assert 1e-4 < np.abs(theirs - exact).max() / np.abs(exact).max() < 2e-2
    assert_close(theirs, stage.discriminator(images).classes, 2e-2)
    losses = peer.train_step(np.tile(images, [2, 1, 1, 1]), np.tile(labels, 2), STEPS)
    assert all(np.isfinite(loss) for loss in losses.values())
    assert {array.dtype for array in jax.tree.leaves(peer.state)} == {np.dtype("float32"), np.dtype("int32")}
