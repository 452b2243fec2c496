"""Fine-tuning and export of the classifiers that know no generator: in parts, recomputed, on replicas, in bfloat16."""

import numpy as np
import pytest
import tensorflow as tf
from steps import BATCH, CLASSES, SAME_START, after_a_step, assert_same_step, schedule

from robgan_tf.keras2 import keras
from robgan_tf.players.classifiers.convnext import ConvNeXt
from robgan_tf.players.classifiers.wide_resnet import WideResNet
from robgan_tf.serving.saved_model import export_classifier
from robgan_tf.training.finetuning import FineTuning

SHAPE = (8, 8, 3)


def wide(**options):
    return WideResNet(CLASSES, SHAPE, 10, 1, "silu", **options)


def convnext(**options):
    # The stem's first layer norm is over half of the first width. Over 2 channels it would give +-1 and have next to no
    # gradient: rounding alone could then flip signs of the attack.
    return ConvNeXt(CLASSES, SHAPE, (1, 1), (8, 12), **options)


@pytest.fixture
def finetuning():
    def make(classifier, recompute=False, **options):
        keras.utils.set_random_seed(1)
        return FineTuning(
            classifier(recompute=recompute),
            None,
            num_examples=80,
            seed=7,
            attacker=SAME_START,  # a random one differs from replica to replica
            epochs=1,
            batch_size=2 * BATCH,
            optimizer=keras.optimizers.SGD,
            schedule=schedule,
            **options,
        )

    return make


@pytest.mark.slow
def test_without_batch_norm_parts_make_the_same_step(finetuning):
    whole, parts = (after_a_step(finetuning, classifier=convnext, accumulation=count) for count in (1, 4))
    assert_same_step(parts, whole, atol=1e-6)


def test_batch_norm_refuses_parts(finetuning):
    with pytest.raises(ValueError, match="FineTuning.accumulation = 2 would give the classifier's batch norm"):
        finetuning(wide, accumulation=2)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", [wide, convnext])
def test_recomputed_on_two_replicas_it_makes_the_step_of_one_without(finetuning, two_replicas, classifier):
    whole = after_a_step(finetuning, classifier=classifier)
    small = after_a_step(finetuning, strategy=two_replicas, classifier=classifier, recompute=True)
    assert_same_step(small, whole, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", [wide, convnext])
def test_it_learns_under_bfloat16(finetuning, classifier):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    after = after_a_step(finetuning, classifier=classifier, recompute=True)
    assert all(np.isfinite(value).all() for value in tf.nest.flatten(after))


@pytest.mark.slow
@pytest.mark.parametrize("classifier", [wide, convnext])
def test_its_export_has_its_logits_and_gradients(tmp_path, classifier):
    network, images = classifier(recompute=True), tf.random.uniform([2, *SHAPE], -1, 1)
    path = export_classifier(
        network,
        None,
        image_shape=SHAPE,
        class_names=[str(label) for label in range(CLASSES)],
        export_root=str(tmp_path),
        check_images=np.random.default_rng(0).integers(0, 256, [4, *SHAPE], np.uint8),
    )
    loaded, found = tf.saved_model.load(path), []
    for function in (loaded.logits, network):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = function(images)
        found.append((logits, tape.gradient(logits, images)))
    for answer, expected in zip(*found):
        np.testing.assert_allclose(answer, expected, atol=1e-5 * np.abs(expected).max())
