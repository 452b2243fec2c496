"""Batches in parts, and blocks computed once more: the same updates in less memory."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, ac_gan, split
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch, Classifier
from robgan_tf.training.accumulation import over_parts
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.optimization import fixed

CLASSES, BATCH = 3, 8


def doubled_and_summed(images, labels):
    return images * 2, {"sum": tf.reduce_sum(images), "labels": tf.reduce_sum(labels)}


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_give_each_image_its_own_result_and_add_up_the_sums(parts):
    images, labels = tf.reshape(tf.range(32.0), [8, 2, 2]), tf.range(8)
    doubled, sums = tf.function(lambda: over_parts(doubled_and_summed, (images, labels), parts))()
    np.testing.assert_array_equal(doubled, 2 * images)
    # 0 + ... + 31 and 0 + ... + 7: whole numbers, so exact in any order.
    assert (float(sums["sum"]), int(sums["labels"])) == (496, 28)
    assert doubled.shape == (8, 2, 2)


def test_parts_see_their_share_of_the_batch_in_order():
    sizes = []

    def note(images):
        sizes.append(images.shape[0])
        return images[:, 0], ()

    column, _ = over_parts(note, (tf.reshape(tf.range(12), [6, 2]),), 3)
    np.testing.assert_array_equal(column, [0, 2, 4, 6, 8, 10])
    assert set(sizes) == {2}


def schedule(updates_per_epoch, updates):
    return fixed(updates_per_epoch, updates, initial=0.05)


RANDOM_START, SAME_START = (
    Attacker(LInf(0.1), steps=2, relative_step_size=0.75, random_start=random_start) for random_start in (True, False)
)


@pytest.fixture
def cotraining(make_generator, make_discriminator):
    def make(recompute=False, losses=None, attacker=RANDOM_START, **options):
        keras.utils.set_random_seed(1)
        return CoTraining(
            make_generator(recompute=recompute),
            make_generator(),
            make_discriminator(recompute=recompute),
            num_examples=80,
            seed=7,
            attacker=attacker,
            losses=losses or split(SplitAsCode()),
            epochs=1,
            batch_size=BATCH,
            discriminator_steps=2,
            optimizer=keras.optimizers.SGD,  # a step is the gradient, whatever its size
            generator_schedule=schedule,
            discriminator_schedule=schedule,
            **options,
        )

    return make


@pytest.fixture
def finetuning(make_generator, make_discriminator):
    def make(recompute=False, with_generator=True, attacker=RANDOM_START, **options):
        keras.utils.set_random_seed(1)
        return FineTuning(
            ClassBranch(make_discriminator(recompute=recompute)),
            FromGenerator(make_generator()) if with_generator else None,
            num_examples=80,
            seed=7,
            attacker=attacker,
            fake_weight=0.5 if with_generator else 0.0,
            epochs=1,
            batch_size=2 * BATCH,
            optimizer=keras.optimizers.SGD,
            schedule=schedule,
            **options,
        )

    return make


def after_a_step(make, strategy=None, **options):
    """All weights and metrics after one step on the same random images."""
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, [2 * BATCH, 8, 8, 3]).astype(np.float32)
    labels = random.integers(0, CLASSES, [2 * BATCH]).astype(np.int32)
    with (strategy or tf.distribute.get_strategy()).scope():
        stage = make(**options)
        batches = tf.data.Dataset.from_tensors((images, labels))
        metrics = stage.fit(batches, epochs=1, verbose=0).history
        players = [stage.generator, stage.discriminator] if isinstance(stage, CoTraining) else [stage.classifier]
        return [weight.numpy() for player in players for weight in player.weights], metrics


def assert_same_step(one, other, atol, metrics_atol=1e-5):
    for weight, expected in zip(one[0], other[0]):
        np.testing.assert_allclose(weight, expected, atol=atol, rtol=0)
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        np.testing.assert_allclose(one[1][name], other[1][name], atol=metrics_atol)


# Weights are of size 1: two millionths are the rounding of a few sums in float32.
@pytest.mark.parametrize("parts, losses", [(2, split), pytest.param(8, ac_gan, marks=pytest.mark.slow)])
def test_cotraining_in_parts_makes_the_same_step(cotraining, parts, losses):
    losses = losses(SplitAsCode())
    whole = after_a_step(cotraining, losses=losses)
    assert_same_step(after_a_step(cotraining, accumulation=parts, losses=losses), whole, atol=2e-6)


@pytest.mark.parametrize("with_generator", [True, False])
def test_finetuning_in_parts_makes_the_same_step(finetuning, with_generator):
    whole = after_a_step(finetuning, with_generator=with_generator)
    assert_same_step(after_a_step(finetuning, accumulation=4, with_generator=with_generator), whole, atol=2e-6)


@pytest.mark.parametrize("name", ["cotraining", "finetuning"])
def test_recomputed_blocks_make_the_same_step(request, name):
    make = request.getfixturevalue(name)
    kept, recomputed = (after_a_step(make, recompute=recompute) for recompute in (False, True))
    # Not to the last bit: what need not be kept can be fused, and is then rounded once less.
    assert_same_step(recomputed, kept, atol=2e-7)


@pytest.mark.parametrize("name", [pytest.param("cotraining", marks=pytest.mark.slow), "finetuning"])
def test_both_on_two_replicas_make_the_step_of_one_without(request, name, two_replicas):
    make = request.getfixturevalue(name)
    # A random start differs from replica to replica.
    whole = after_a_step(make, attacker=SAME_START)
    small = after_a_step(make, strategy=two_replicas, recompute=True, accumulation=2, attacker=SAME_START)
    assert_same_step(small, whole, atol=5e-6)


@pytest.mark.slow
def test_both_work_under_mixed_precision(cotraining):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    # Without an attack, whose signs turn a rounding of 16 bits into a step.
    whole = after_a_step(cotraining, attacker=None)
    small = after_a_step(cotraining, attacker=None, recompute=True, accumulation=2)
    # bfloat16 has 8 bits: of gradients of size 10 (of biases, sums over all pixels) a twenty-fifth is rounding, and the
    # rate is 0.05. A part left out or counted twice would move them by 0.25.
    # Norms of gradients are about 8.
    assert_same_step(small, whole, atol=0.02, metrics_atol=0.08)


def test_a_number_of_parts_that_does_not_divide_the_batch_is_refused(cotraining):
    with pytest.raises(ValueError, match="accumulation must divide the batch of a replica, 8; got 3"):
        cotraining(accumulation=3)


class WithBatchNorm(Classifier):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.dense = keras.layers.Dense(CLASSES)
        self(tf.zeros([1, 8, 8, 3]))

    def call(self, images, training=False):
        return self.dense(tf.reduce_mean(self.norm(images, training=training), axis=[1, 2]))


def test_parts_of_a_classifier_with_batch_norm_are_refused():
    options = {"attacker": None, "fake_weight": 0.0, "epochs": 1, "batch_size": 8, "num_examples": 80, "seed": 0}
    options = {**options, "optimizer": keras.optimizers.SGD, "schedule": schedule}
    FineTuning(WithBatchNorm(), None, **options)
    with pytest.raises(ValueError, match="batch norm the statistics of parts"):
        FineTuning(WithBatchNorm(), None, accumulation=2, **options)
