"""Batches in parts, and blocks computed once more: the same updates in less memory."""

import numpy as np
import pytest
import tensorflow as tf
from steps import CLASSES, SAME_START, after_a_step, assert_same_step, schedule

from robgan_tf.keras2 import keras
from robgan_tf.losses import SplitAsCode, ac_gan, split
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.training.accumulation import over_parts
from robgan_tf.training.finetuning import FineTuning


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
