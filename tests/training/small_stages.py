"""Stages of small networks, and steps of them, for tests."""

import numpy as np
import tensorflow as tf
from steps import take_steps

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, split
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator
from robgan_tf.run.devices import mirrored
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.optimization import fixed

SHAPE, CLASSES, BATCH, STEPS = (8, 8, 1), 3, 4, 2


def make_generator():
    return Generator(CLASSES, SHAPE, base_width=4, multipliers=(2, 1), upsample=(True,), latent_dim=6)


def make_discriminator():
    return Discriminator(CLASSES, SHAPE, base_width=4, multipliers=(1, 2), downsample=(True, False))


def make_attacker(**options):
    return Attacker(LInf(0.1), steps=3, relative_step_size=0.5, **options)


def schedule(updates_per_epoch, updates):
    return fixed(updates_per_epoch, updates, initial=0.01)


def make_cotraining(attacker="default", losses=None, optimizer=keras.optimizers.Adam, **options):
    return CoTraining(
        make_generator(),
        make_generator(),
        make_discriminator(),
        num_examples=80,
        seed=7,
        attacker=make_attacker() if attacker == "default" else attacker,
        losses=losses or split(SplitAsCode()),
        epochs=1,
        batch_size=BATCH,
        discriminator_steps=STEPS,
        optimizer=optimizer,
        generator_schedule=schedule,
        discriminator_schedule=schedule,
        **options,
    )


def make_finetuning(generator=None, attacker="default", fake_weight=0.0, optimizer=keras.optimizers.Adam, **options):
    return FineTuning(
        ClassBranch(make_discriminator()),
        generator and FromGenerator(generator),
        num_examples=80,
        seed=7,
        attacker=make_attacker() if attacker == "default" else attacker,
        fake_weight=fake_weight,
        epochs=1,
        batch_size=BATCH * STEPS,
        optimizer=optimizer,
        schedule=schedule,
        **options,
    )


def batches(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.uniform(-1, 1, [count, BATCH * STEPS, *SHAPE]).astype(np.float32)
    labels = random.integers(0, CLASSES, [count, BATCH * STEPS]).astype(np.int32)
    return tf.data.Dataset.from_tensor_slices((images, labels))


def train(stage, count=3):
    return take_steps(stage, batches(count), count)


def weights(model):
    return [weight.numpy().copy() for weight in model.weights]


def same(before, model):
    return [np.array_equal(old, new) for old, new in zip(before, weights(model))]


def on_two_replicas(make):
    """Makes a stage on one device and on two, with equal weights."""
    one = make()
    strategy = mirrored(("CPU:0", "CPU:1"))
    with strategy.scope():
        two = make()
        for name in ("generator", "average_generator", "discriminator", "classifier"):
            if getattr(one, name, None) is not None:
                getattr(two, name).set_weights(getattr(one, name).get_weights())
    return one, two
