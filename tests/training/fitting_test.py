"""Training a stage from Python: `fit` on arrays and data sets, and the stages' defaults."""

import numpy as np
import pytest
import tensorflow as tf
from steps import BATCH, CLASSES, take_steps

from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.keras2 import keras
from robgan_tf.losses import Weights
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.classifiers.keras_classifier import KerasClassifier
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.monitoring import NonFiniteLossError

# As many as the stages of conftest.py are made for.
COUNT = 80


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return random.integers(0, 256, [COUNT, 8, 8, 3], np.uint8), random.integers(0, CLASSES, [COUNT])


@pytest.fixture
def network():
    images = keras.Input([8, 8, 3])
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(images))
    return keras.Model(images, keras.layers.Dense(CLASSES)(features))


def weights(stage):
    return [weight.numpy() for player in stage.players.values() for weight in player.weights]


def assert_same(found, expected):
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", ["cotraining", "finetuning"])
def test_fit_takes_the_steps_of_a_run_on_the_batches_of_a_run(make, request, arrays):
    make = request.getfixturevalue(make)
    fitted, expected = make(average_decay=0.5), make(average_decay=0.5)
    history = fitted.fit(*arrays)
    examples = Examples(arrays[0], arrays[1].astype(np.int32))
    batches = training_batches(examples, expected.images_per_step, steps=expected.total_steps, seed=expected.seed)
    expected.start()
    last = take_steps(expected, batches, expected.total_steps)
    assert_same(weights(fitted), weights(expected))
    assert fitted.steps_done == fitted.total_steps == history[-1]["step"] == COUNT // (2 * BATCH)
    assert history[-1].keys() == {"step", *last}


def test_an_epoch_of_the_history_is_the_mean_of_its_steps(finetuning, arrays):
    stage, seen = finetuning(), []
    step_function = stage.step_function

    def watched():
        take_step = step_function()

        def step(iterator):
            seen.append(take_step(iterator))
            return seen[-1]

        return step

    stage.step_function = watched
    (epoch,) = stage.fit(*arrays)
    assert len(seen) == 5
    assert epoch["loss"] == pytest.approx(np.mean([float(metrics["loss"]) for metrics in seen]), rel=1e-6)


def test_fit_goes_on_where_it_was_interrupted(finetuning, arrays):
    whole, interrupted = finetuning(), finetuning()
    whole.fit(*arrays)
    step_function = interrupted.step_function

    def two_steps():
        take_step = step_function()

        def step(iterator):
            if interrupted.steps_done == 2:
                raise KeyboardInterrupt
            return take_step(iterator)

        return step

    interrupted.step_function = two_steps
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(*arrays)
    interrupted.step_function = step_function
    interrupted.fit(*arrays)
    assert_same(weights(interrupted), weights(whole))


@pytest.mark.parametrize("scale", ["uint8", "float32"])
def test_a_data_set_of_batches_of_any_size_is_cut_into_those_of_the_stage(scale, finetuning, arrays):
    images, labels = arrays
    stored = images if scale == "uint8" else images.astype(np.float32) / np.float32(127.5) - 1
    fitted, expected = finetuning(), finetuning()
    fitted.fit(tf.data.Dataset.from_tensor_slices((stored, labels)).batch(7))
    floats = tf.cast(images, tf.float32) / 127.5 - 1
    batches = tf.data.Dataset.from_tensor_slices((floats, labels.astype(np.int32)))
    take_steps(expected, batches.batch(expected.images_per_step, drop_remainder=True), expected.total_steps)
    assert_same(weights(fitted), weights(expected))


@pytest.mark.slow
def test_two_replicas_fit_as_one(finetuning, arrays, two_replicas):
    alone = finetuning(attacker=None)
    alone.fit(*arrays)
    with two_replicas.scope():
        shared = finetuning(attacker=None)
    shared.fit(*arrays)
    # Sums over the images of two halves instead of a whole: float32's rounding, over five steps.
    for one, other in zip(weights(shared), weights(alone)):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_after_fit_the_averaged_generator_has_its_statistics(cotraining, arrays):
    stage = cotraining()
    before = [norm.moving_mean.numpy() for norm in stage.average_generator.batch_norm_layers]
    stage.fit(*arrays)
    after = [norm.moving_mean.numpy() for norm in stage.average_generator.batch_norm_layers]
    assert not any(np.array_equal(one, other) for one, other in zip(before, after))
    stage.standardize_average_generator()
    assert_same(after, [norm.moving_mean.numpy() for norm in stage.average_generator.batch_norm_layers])


def test_a_stage_that_is_done_is_not_trained_on(finetuning, arrays):
    stage = finetuning()
    stage.fit(*arrays)
    with pytest.raises(ValueError, match="finetuning has done its 5 steps: make a new stage"):
        stage.fit(*arrays)


def test_a_loss_that_is_not_finite_ends_it_with_step_and_diagnosis(finetuning, arrays):
    stage = finetuning()
    stage.classifier.trainable_variables[0].assign(np.nan * stage.classifier.trainable_variables[0])
    with pytest.raises(NonFiniteLossError, match="at step 1 of finetuning.*not finite: classifier: .*learning rate"):
        stage.fit(*arrays)


def data_set(images, labels, batch=8):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, labels: (images / 255.0, labels), r"must be uint8 \[N, H, W, C\] in 0..255, got float64"),
        (lambda images, labels: (images[..., 0], labels), r"Without channels: images\[..., None\]"),
        (lambda images, labels: (images, None), "labels are missing"),
        (lambda images, labels: (images, labels[:-1]), r"Labels must be integers \[80\].* int64 \[79\]"),
        (lambda images, labels: (images, labels / 2), "Labels must be integers .* float64"),
        (lambda images, labels: (images, labels + 1), "within 0..2, for 3 classes; they go from 1 to 3"),
        (lambda images, labels: (images[:40], labels[:40]), "40 images, and the stage was made for num_examples = 80"),
        (lambda images, labels: (images[:, :4], labels), r"images are \(4, 8, 3\), and the networks .* \(8, 8, 3\)"),
        (lambda images, labels: (data_set(images, labels), labels), "holds the labels"),
        (lambda images, labels: (data_set(images, labels).unbatch(),), r"dataset.batch\(16\) makes batches"),
        (lambda images, labels: (data_set(images, labels).map(lambda x, y: x),), "must give batches of images"),
        (lambda images, labels: (data_set(images / 255.0, labels),), "float32 .*; got float64 and int64"),
        (lambda images, labels: (data_set(np.float32(images), labels),), r"must be in \[-1, 1\], and go from 0 to 255"),
        (lambda images, labels: (data_set(images, labels).take(0),), "the data set is empty"),
        (lambda images, labels: (data_set(images[:, :4], labels),), r"images are \(4, 8, 3\)"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_first_step(change, message, finetuning, arrays):
    stage = finetuning()
    with pytest.raises(ValueError, match=message):
        stage.fit(*change(*arrays))
    assert stage.steps_done == 0


# ---- the defaults


def test_cotraining_has_the_losses_and_rates_of_the_paper_by_default(make_generator, make_discriminator):
    generator = make_generator()
    stage = CoTraining(generator, generator.another(), make_discriminator(), 6400, attacker=None, epochs=100)
    assert stage.objectives.weights == Weights() and stage.objectives.discriminator.func.__name__.startswith("split_")
    for optimizer, updates in ((stage.generator_optimizer, 1), (stage.discriminator_optimizer, 5)):
        assert (optimizer.beta_1, optimizer.beta_2) == (0.0, 0.9)
        schedule = optimizer.get_config()["learning_rate"]["config"]
        # 6,400 images are 20 steps an epoch, and the rate is halved after 50.
        assert schedule["initial_learning_rate"] == 2e-4 and schedule["decay_rate"] == 0.5
        assert schedule["decay_steps"] == 1000 * updates and schedule["staircase"]


def test_finetuning_takes_networks_as_they_are(make_generator, make_discriminator, network):
    generator, discriminator = make_generator(), make_discriminator()
    own = FineTuning(network, generator, COUNT, attacker=None, epochs=1)
    assert isinstance(own.classifier, KerasClassifier) and own.classifier.network is network
    assert isinstance(own.generated, FromGenerator) and own.generated.generator is generator
    assert own.fake_weight == 0.5
    branch = FineTuning(discriminator, None, COUNT, attacker=None, epochs=1)
    assert isinstance(branch.classifier, ClassBranch) and branch.classifier.discriminator is discriminator
    assert branch.fake_weight == 0.0


def test_fit_trains_an_own_keras_network(network, arrays):
    before = [weight.numpy() for weight in network.trainable_variables]
    stage = FineTuning(network, None, COUNT, attacker=None, epochs=1, batch_size=16, average_decay=0.5)
    stage.fit(*arrays)
    assert not any(np.array_equal(one, other.numpy()) for one, other in zip(before, network.trainable_variables))
    assert stage.result is not stage.classifier


def test_the_default_rate_of_finetuning_falls_as_in_the_papers_60_epochs():
    from robgan_tf.training.optimization import finetuning_schedule, staged

    found, expected = finetuning_schedule(10, 600), staged(10, 600, initial=1e-3)
    for update in (0, 199, 200, 201, 401, 501, 599):
        assert float(found(update)) == pytest.approx(float(expected(update)), rel=1e-6)
