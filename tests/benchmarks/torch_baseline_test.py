"""The PyTorch peer of the benchmark does the arithmetic of this project; skipped where PyTorch is not installed."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # small networks: two threads would wait for each other where the machine has other work

from measures.shapes import Shapes  # noqa: E402
from measures.torch_baseline import Peer  # noqa: E402

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

forms = pytest.mark.parametrize("naive", [False, True], ids=["well_written", "naive"])


def make_peer(stage, **options):
    return Peer.like(stage.generator, stage.discriminator, epsilon=EPSILON, learning_rate=RATE, **options)


def to_torch(noise, labels):
    return torch.from_numpy(noise.numpy()), torch.from_numpy(labels.numpy()).long()


def to_nhwc(images):
    return images.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_agree(network):
    stage = make_stage(network)
    peer = make_peer(stage)
    images, _ = some_images(network, 2)
    ours = stage.discriminator(images)
    with torch.no_grad():
        for theirs, logits in zip(peer.verdict(peer.images(images)), ours):
            assert_close(theirs, logits, ROUNDING)
        noise, labels = generator_inputs([0, 1], 3, 128, 5)
        for training in (True, False):
            peer.generator.train(training)
            generated = peer.generator(*to_torch(noise, labels))
            assert_close(to_nhwc(generated), stage.generator((noise, labels), training=training), 5 * ROUNDING)
            if training:  # by PyTorch the running variance is the unbiased one, so go on with ours
                peer.load(stage.generator, stage.discriminator)


@forms
def test_attacks_agree(naive):
    stage = make_stage()
    peer = make_peer(stage, naive=naive)
    images, labels = some_images()
    theirs = to_nhwc(peer.attack(peer.images(images), peer.labels(labels)))
    ours = tf.function(stage.attack, autograph=False)(tf.constant(images), tf.constant(labels), [0, 0]).numpy()
    assert np.abs(ours - images).max() > 0.99 * EPSILON
    # A step goes by the gradient's sign. Where the gradient is zero but for rounding, it may go the other way.
    assert np.mean(np.abs(theirs - ours) > ROUNDING) < 1e-3
    assert all(weight.grad is None for weight in peer.discriminator.parameters())


@forms
def test_evaluations_agree(naive):
    stage = make_stage()
    peer = make_peer(stage, naive=naive)
    images, labels, ours = our_evaluation(stage)
    theirs = peer.evaluate_pgd(peer.images(images), peer.labels(labels)).numpy()
    assert 0 < ours.sum() < 64
    assert np.sum(ours != theirs) <= 1


def weights(peer):
    """The weights of both networks, but for those of no effect: biases in front of a batch norm."""
    networks = {"generator": peer.generator, "discriminator": peer.discriminator}
    named = {f"{player}.{name}": w for player, network in networks.items() for name, w in network.named_parameters()}
    idle = [name for name in named if name.startswith("generator.blocks") and name.endswith("bias")]
    return torch.cat([weight.detach().flatten().clone() for name, weight in named.items() if name not in idle])


@forms
def test_training_steps_agree(naive):
    """A generator update and two discriminator updates, of the same images, noise and labels.

    With beta_1 = 0 Adam moves every weight by about the learning rate, however small its gradient: one that is nothing
    but rounding makes a step of random sign. So a weight in a thousand may differ by more than a hundredth of a step,
    and biases in front of a batch norm, whose gradient is zero, make such steps all the time.
    """
    stage = make_stage("16px")
    peer = make_peer(stage, naive=naive)
    images, labels = some_images("16px", BATCH * STEPS)
    before = weights(peer)
    generator_seed, *seeds = step_seeds(stage.seed, stage.step, 1 + 2 * STEPS)
    inputs = [to_torch(*generator_inputs(seed, BATCH, 128, 5)) for seed in (generator_seed, *seeds[1::2])]
    theirs = peer.train_step(images, labels, STEPS, inputs)
    ours = stage.train_step((tf.constant(images), tf.constant(labels)))
    for name, loss in theirs.items():
        assert_close(loss, ours[name], ROUNDING)

    updated = make_peer(stage)
    assert torch.median(torch.abs(weights(peer) - before)) > 0.5 * RATE
    differences = torch.abs(weights(peer) - weights(updated))
    assert torch.mean((differences > 0.01 * RATE).float()) < 1e-3 and differences.max() < 2.2 * STEPS * RATE
    for layer, other in zip(peer.discriminator.layers(), updated.discriminator.layers()):
        assert torch.abs(layer.u - other.u).max() < RATE
    average = Peer.like(stage.average_generator, stage.discriminator)
    for theirs, ours in zip(peer.averages, average.generator.parameters()):
        assert torch.abs(theirs - ours).max() < 2.2 * RATE  # idle biases too
    for name, theirs in peer.generator.named_buffers():
        if name.endswith("num_batches_tracked"):
            continue
        # By PyTorch the running variance is the unbiased one; the means follow the idle biases.
        np.testing.assert_allclose(theirs, updated.generator.get_buffer(name), rtol=0.005, atol=2 * STEPS * RATE)


def test_bfloat16_agrees_to_its_rounding():
    with devices.precision("mixed_bfloat16"):
        stage = make_stage()
    images, labels = some_images()
    float32 = make_peer(stage)
    for naive in (False, True):
        peer = make_peer(stage, precision="mixed_bfloat16", naive=naive)
        ours = stage.discriminator(images)
        exact, theirs = (p.verdict(p.images(images))[1].detach().numpy() for p in (float32, peer))
        assert 1e-4 < np.abs(theirs - exact).max() / np.abs(exact).max() < 2e-2
        assert_close(theirs, ours.classes, 2e-2)
        losses = peer.train_step(np.tile(images, [2, 1, 1, 1]), np.tile(labels, 2), STEPS)
        assert all(np.isfinite(loss) for loss in losses.values())


@forms
def test_everything_is_on_the_device_of_the_peer(naive, monkeypatch):
    """On a device without memory: an operation on tensors of two devices is an error, there as on a GPU."""
    adam = torch.optim.Adam
    # Neither is there for such a device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused=False, **options: adam(*args, **options))
    shapes = Shapes(8, 3, 5, 6, 4, ((2, False), (3, True)), ((2, True), (2, False)))
    peer = Peer.of(shapes, naive=naive, device="meta")
    images, labels = np.zeros([4, 8, 8, 3], np.float32), np.zeros([4], np.int32)
    losses = peer.train_step(images, labels, 2)
    right = peer.evaluate_pgd(peer.images(images), peer.labels(labels))
    assert {tensor.device.type for tensor in (*losses.values(), right, *peer.averages)} == {"meta"}
