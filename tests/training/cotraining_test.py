"""Co-training on small networks: the step of the paper, averages and standing statistics."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from small_stages import (
    BATCH,
    CLASSES,
    SHAPE,
    STEPS,
    batches,
    make_attacker,
    make_cotraining,
    make_discriminator,
    make_generator,
    schedule,
    train,
    weights,
)

from robgan_tf.keras2 import keras
from robgan_tf.losses import AcGanAsCode, SplitAsCode, ac_gan, split
from robgan_tf.run.devices import mirrored
from robgan_tf.run.metrics import described
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.diff_augment import DiffAugment
from robgan_tf.training.randomness import (
    AUGMENTED_FAKE,
    AUGMENTED_REAL,
    generator_inputs,
    replica_seed,
    step_seeds,
    uniform_numbers,
)
from robgan_tf.training.top_k import TopK


def class_term(logits, labels):
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def seen_by_hand(stage, images, seed, use):
    """Images as the discriminator sees them: augmented by numbers of their own, where there is an augmentation."""
    if stage.augmentation is None:
        return images
    return stage.augmentation(images, uniform_numbers(seed, use, BATCH, 7))


def attacked_by_hand(stage, images, labels, seed, weights, fake_seed):
    """Three steps of PGD (eq. 2) of 0.05 in the ball of 0.1, from where the attacker starts."""
    clean, attacked = images, stage.attacker.start(images, replica_seed(seed))
    for _ in range(3):
        with tf.GradientTape() as tape:
            tape.watch(attacked)
            seen = seen_by_hand(stage, attacked, fake_seed, AUGMENTED_REAL)
            real = stage.discriminator(seen, training=False)
            source, classes = tf.nn.softplus(-real.source), class_term(real.classes, labels)
            loss = weights.attack * source + weights.attack_class * classes
        attacked = attacked + 0.05 * tf.sign(tape.gradient(loss, attacked))
        attacked = tf.clip_by_value(tf.clip_by_value(attacked, clean - 0.1, clean + 0.1), -1, 1)
    return attacked


def step_by_hand(stage, images, labels, weights, fake_classes):
    """A training step as in section 3.3: of the generator, then n times of attacker and discriminator, each by SGD.

    Returns the losses of the last updates.
    """
    generator, discriminator = stage.generator, stage.discriminator

    def descend(model, tape, loss):
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients):
            variable.assign_sub(0.01 * tf.convert_to_tensor(gradient))

    seeds = step_seeds(7, stage.step, 1 + 2 * STEPS)
    noise, asked = generator_inputs(seeds[0], BATCH, 6, CLASSES)
    with tf.GradientTape() as tape:
        made = generator((noise, asked), training=True)
        fake = discriminator(seen_by_hand(stage, made, seeds[0], AUGMENTED_FAKE), training=False)
        source, classes = tf.nn.softplus(-fake.source), class_term(fake.classes, asked)
        generator_loss = tf.reduce_mean(weights.generator * source + weights.generator_class * classes)
    descend(generator, tape, generator_loss)
    for number in range(STEPS):
        real_images, real_labels = images[number::STEPS], labels[number::STEPS]
        attack_seed, fake_seed = seeds[1 + 2 * number : 3 + 2 * number]
        if stage.attacker is not None:
            real_images = attacked_by_hand(stage, real_images, real_labels, attack_seed, weights, fake_seed)
        noise, asked = generator_inputs(fake_seed, BATCH, 6, CLASSES)
        fake_images = generator((noise, asked), training=True)
        discriminator.power_iteration()
        real_images = seen_by_hand(stage, real_images, fake_seed, AUGMENTED_REAL)
        fake_images = seen_by_hand(stage, fake_images, fake_seed, AUGMENTED_FAKE)
        with tf.GradientTape() as tape:
            real, fake = (discriminator(one, training=True) for one in (real_images, fake_images))
            terms = weights.real * tf.nn.softplus(-real.source) + weights.fake * tf.nn.softplus(fake.source)
            terms += weights.real_class * class_term(real.classes, real_labels)
            if fake_classes:
                terms += weights.fake_class * class_term(fake.classes, asked)
            loss = tf.reduce_mean(terms)
        descend(discriminator, tape, loss)
    for average, weight in zip(stage.average_generator.trainable_variables, generator.trainable_variables):
        average.assign(0.1 * average + 0.9 * weight)  # at step 0 the decay is 1 / 10
    return {"generator_loss": float(generator_loss), "discriminator_loss": float(loss)}


@pytest.mark.parametrize(
    ("attacker", "losses", "weights", "fake_classes", "options"),
    [
        (make_attacker(), split, SplitAsCode(), False, {}),
        (make_attacker(random_start=True), ac_gan, AcGanAsCode(), True, {}),
        (None, split, SplitAsCode(), False, {}),
        (make_attacker(), split, SplitAsCode(), False, {"augmentation": DiffAugment()}),
    ],
    ids=["split", "ac_gan with a random start", "no attacker", "augmented"],
)
def test_a_step_of_cotraining_is_that_of_the_paper(attacker, losses, weights, fake_classes, options):
    make = functools.partial(make_cotraining, attacker, losses(weights), keras.optimizers.SGD, **options)
    stage, reference = make(), make()
    for model in ("generator", "average_generator", "discriminator"):
        getattr(reference, model).set_weights(getattr(stage, model).get_weights())
    expected = step_by_hand(reference, *next(iter(batches(1))), weights, fake_classes)
    metrics = train(stage, 1)
    for model in ("generator", "average_generator", "discriminator"):
        for one, other in zip(getattr(stage, model).weights, getattr(reference, model).weights):
            # Float32 rounding of weights and running averages of size 1. (u is among the discriminator's.)
            np.testing.assert_allclose(one, other, atol=2e-6, err_msg=f"{model} {one.name}")
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_a_stage_of_a_better_generator_goes_on_as_if_it_had_never_stopped(tmp_path):
    def make():
        options = {"augmentation": DiffAugment(), "balanced_labels": True, "top_k": TopK(0.5, 0.25)}
        stage = make_cotraining(attacker=None, generator_optimizer=keras.optimizers.SGD, **options)
        stage.steps_per_epoch = 2  # so that k falls
        return stage

    stage = make()
    train(stage, 2)
    path = tf.train.Checkpoint(**stage.checkpoint_objects()).save(str(tmp_path / "stopped"))
    resumed = make()
    tf.train.Checkpoint(**resumed.checkpoint_objects()).restore(path).assert_consumed()
    for one in (stage, resumed):
        train(one, 2)
    assert type(stage.generator_optimizer) is keras.optimizers.SGD
    assert type(stage.discriminator_optimizer) is keras.optimizers.Adam
    for model in ("generator", "average_generator", "discriminator"):
        for one, other in zip(getattr(stage, model).weights, getattr(resumed, model).weights):
            np.testing.assert_array_equal(one, other, err_msg=one.name)


def test_metrics_of_cotraining_are_those_that_are_declared_and_its_step_counts():
    stage = make_cotraining()
    metrics = train(stage)
    assert set(metrics) == {
        "generator_loss",
        "generator_class_accuracy",
        "generator_gradient_norm",
        "discriminator_gradient_norm",
        "discriminator_loss",
        "real_accuracy",
        "fake_accuracy",
        "class_accuracy",
        "generator_weight_norm",
        "discriminator_weight_norm",
    }
    assert all(described(name).label != name.replace("_", " ") for name in metrics)
    assert int(stage.step) == 3
    for player, model in stage.players.items():
        norm = np.sqrt(sum(np.sum(weight.numpy() ** 2) for weight in model.trainable_variables))
        np.testing.assert_allclose(metrics[f"{player}_weight_norm"], norm, rtol=1e-5)


def test_one_generator_update_and_n_discriminator_updates_a_step():
    stage = make_cotraining()
    train(stage, 3)
    assert int(stage.generator_optimizer.iterations) == 3
    assert int(stage.discriminator_optimizer.iterations) == 3 * STEPS


def test_without_an_attacker_real_images_stay_as_they_are():
    stage = make_cotraining(attacker=None)
    images = tf.random.uniform([BATCH, *SHAPE], -1, 1)
    assert stage.attack(images, tf.zeros([BATCH], tf.int32), seed=None) is images


def test_micro_batches_hold_the_same_images_however_many_replicas_there_are():
    stage = make_cotraining()
    images = tf.reshape(tf.range(BATCH * STEPS), [-1, 1])
    halves = [part[0][:, 0].numpy().tolist() for part in stage.split(images, images[:, 0])]
    assert halves == [[0, 2, 4, 6], [1, 3, 5, 7]]
    # Two replicas get 0..3 and 4..7; their micro-batches joined are the same.
    stage.replica_batch_size = BATCH // 2
    replicas = [stage.split(part, part[:, 0]) for part in tf.split(images, 2)]
    joined = [np.concatenate([replica[i][1] for replica in replicas]).tolist() for i in range(STEPS)]
    assert joined == halves


def test_average_generator_is_the_moving_average_of_the_weights():
    stage = make_cotraining(average_decay=0.9)
    average = weights(stage.average_generator)[0]
    for step in range(3):
        train(stage, 1)
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * stage.generator.weights[0].numpy()
    # float32 rounding of three updates.
    np.testing.assert_allclose(stage.average_generator.weights[0].numpy(), average, rtol=1e-4, atol=1e-6)


def test_standing_statistics_are_those_of_the_averaged_generator_and_repeat_exactly():
    stage = make_cotraining()
    train(stage)
    stage.standardize_average_generator(batches=80, batch_size=64)
    first = [layer.moving_mean.numpy() for layer in stage.average_generator.batch_norm_layers]
    # The first batch norm sees a linear map of z ~ N(0, I): its mean is the bias of the dense layer, averaged over 4x4.
    bias = stage.average_generator.dense.bias.numpy().reshape(16, -1).mean(axis=0)
    # About 19 batches of 64 images x 16 positions count; kernel entries are below 0.2.
    np.testing.assert_allclose(first[0], bias, atol=0.05)
    stage.standardize_average_generator(batches=80, batch_size=64)
    for old, layer in zip(first, stage.average_generator.batch_norm_layers):
        np.testing.assert_array_equal(old, layer.moving_mean.numpy())


def test_standing_statistics_keep_nothing_of_where_they_start():
    """The first batch norm sees a linear map of z ~ N(0, I): a tiny kernel has a tiny variance, which 1 would hide."""
    stage = make_cotraining()
    dense = stage.average_generator.dense
    dense.kernel.assign(1e-3 * dense.kernel)
    stage.standardize_average_generator(batches=20, batch_size=64)
    # At a place of the map the variance of a channel is the sum of the squares of the kernel's column.
    columns = tf.reduce_sum(tf.square(dense.kernel), axis=0).numpy().reshape(16, -1)
    bias = dense.bias.numpy().reshape(16, -1)
    expected = columns.mean(axis=0) + bias.var(axis=0)
    # Some 19 batches of 64 images x 16 places, which hang together: less than 10 % off.
    found = stage.average_generator.batch_norm_layers[0].moving_variance.numpy()
    np.testing.assert_allclose(found, expected, rtol=0.2)


def test_a_batch_that_the_replicas_cannot_share_is_refused():
    with mirrored(("CPU:0", "CPU:1")).scope():
        with pytest.raises(ValueError, match="multiple of their number, 2; got 3"):
            make_cotraining_with_batch(3)


def make_cotraining_with_batch(batch_size):
    return CoTraining(
        *(make_generator(), make_generator(), make_discriminator(), 80, 7),
        attacker=None,
        losses=split(SplitAsCode()),
        epochs=1,
        batch_size=batch_size,
        optimizer=keras.optimizers.SGD,
        generator_schedule=schedule,
        discriminator_schedule=schedule,
    )
