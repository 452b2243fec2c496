"""What a peer of the benchmark is held against: co-training of small networks, images, and when numbers are equal."""

import functools
import pathlib

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, split
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator
from robgan_tf.training import optimization
from robgan_tf.training.cotraining import CoTraining

ROOT = pathlib.Path(__file__).resolve().parents[2]
NETWORKS = sorted(path.stem for path in (ROOT / "gin/networks").glob("*.gin"))
SIDES = {"16px": 16, "64px": 64, "128px_143": 128, "128px_1000": 128}
BATCH, STEPS, EPSILON, RATE = 6, 2, 0.0625, 2e-4
# Of float32 (2**-24 is 6e-8), after up to 15 layers of sums over some hundred numbers each, in another order.
ROUNDING = 1e-5


def make_stage(network="32px_sngan", width=4, num_classes=5):
    """Co-training, and the players as if they had been trained: no weight, offset or average is at its start."""
    gin.parse_config_file(str(ROOT / f"gin/networks/{network}.gin"))
    side = SIDES.get(network, 32)
    generators = [Generator(num_classes, (side, side, 3), width, name=f"generator_{index}") for index in range(2)]
    discriminator = Discriminator(num_classes, (side, side, 3), width)
    for index, variable in enumerate([*generators[0].variables, *discriminator.variables]):
        if not variable.name.endswith(("kernel:0", "u:0")):
            variable.assign_add(tf.abs(0.1 * tf.random.stateless_normal(variable.shape, [index, 1])))
    return CoTraining(
        *generators,
        discriminator,
        num_examples=BATCH * STEPS,
        seed=3,
        attacker=Attacker(LInf(EPSILON), 5, relative_step_size=0.2),
        losses=split(SplitAsCode()),
        epochs=100,
        batch_size=BATCH,
        discriminator_steps=STEPS,
        optimizer=functools.partial(keras.optimizers.Adam, beta_1=0.0, beta_2=0.9),
        generator_schedule=functools.partial(optimization.fixed, initial=RATE),
        discriminator_schedule=functools.partial(optimization.fixed, initial=RATE),
    )


def some_images(network="32px_sngan", count=BATCH):
    side, random = SIDES.get(network, 32), np.random.default_rng(0)
    images = random.uniform(-1, 1, [count, side, side, 3]).astype(np.float32)
    return images, random.integers(0, 5, count).astype(np.int32)


def our_evaluation(stage):
    """Images, the labels that the discriminator gives them, and which of these it keeps under this project's PGD-20."""
    images, _ = some_images(count=64)
    labels = tf.argmax(stage.discriminator(images).classes, axis=-1, output_type=tf.int32)
    attack = Attacker(LInf(EPSILON), 20, relative_step_size=0.2)

    def logits(images):
        return stage.discriminator(images, training=False).classes

    attacked = tf.function(lambda: attack.fool(logits, tf.constant(images), labels, [0, 0]))()
    kept = tf.equal(tf.argmax(logits(attacked), axis=-1, output_type=tf.int32), labels)
    return images, labels.numpy(), kept.numpy()


def assert_close(theirs, ours, tolerance):
    """Compares with a tolerance relative to the largest number: rounding adds up over sums of large and small ones."""
    theirs, ours = np.asarray(theirs), np.asarray(ours)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance * np.abs(ours).max())
