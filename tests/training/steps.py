"""Steps of a stage on batches, for tests."""

import itertools

import numpy as np
import tensorflow as tf

from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.optimization import fixed

CLASSES, BATCH = 3, 8


def schedule(updates_per_epoch, updates):
    return fixed(updates_per_epoch, updates, initial=0.05)


RANDOM_START, SAME_START = (
    Attacker(LInf(0.1), steps=2, relative_step_size=0.75, random_start=random_start) for random_start in (True, False)
)


def take_steps(stage, batches, count):
    """Takes `count` steps of a stage on a data set of global batches; returns the metrics of the last."""
    take_step = stage.step_function()
    iterator = iter(stage.strategy.experimental_distribute_dataset(batches.repeat()))
    for _ in itertools.repeat(None, count):
        metrics = take_step(iterator)
    return {name: float(value) for name, value in metrics.items()}


def after_a_step(make, strategy=None, **options):
    """All weights and metrics after one step on the same random images."""
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, [2 * BATCH, 8, 8, 3]).astype(np.float32)
    labels = random.integers(0, CLASSES, [2 * BATCH]).astype(np.int32)
    with (strategy or tf.distribute.get_strategy()).scope():
        stage = make(**options)
        batches = tf.data.Dataset.from_tensors((images, labels))
        metrics = take_steps(stage, batches, 1)
        players = [stage.generator, stage.discriminator] if isinstance(stage, CoTraining) else [stage.classifier]
        return [weight.numpy() for player in players for weight in player.weights], metrics


def assert_same_step(one, other, atol, metrics_atol=1e-5):
    for weight, expected in zip(one[0], other[0]):
        np.testing.assert_allclose(weight, expected, atol=atol, rtol=0)
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        np.testing.assert_allclose(one[1][name], other[1][name], atol=metrics_atol)
