"""Co-training and fine-tuning on small networks: who moves whom, replicas, precision, degenerate cases."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from steps import take_steps

from robgan_tf.keras2 import keras
from robgan_tf.losses import AcGanAsCode, SplitAsCode, ac_gan, split
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
from robgan_tf.players.classifiers.vgg import VGG16
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator
from robgan_tf.run.devices import mirrored
from robgan_tf.run.metrics import described
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.objectives import Adversarial, LipschitzRegularised, Trades
from robgan_tf.training.optimization import fixed
from robgan_tf.training.randomness import generator_inputs, replica_seed, step_seeds

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


def class_term(logits, labels):
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def attacked_by_hand(stage, images, labels, seed, weights):
    """Three steps of PGD (eq. 2) of 0.05 in the ball of 0.1, from where the attacker starts."""
    clean, attacked = images, stage.attacker.start(images, replica_seed(seed))
    for _ in range(3):
        with tf.GradientTape() as tape:
            tape.watch(attacked)
            real = stage.discriminator(attacked, training=False)
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
        fake = discriminator(generator((noise, asked), training=True), training=False)
        source, classes = tf.nn.softplus(-fake.source), class_term(fake.classes, asked)
        generator_loss = tf.reduce_mean(weights.generator * source + weights.generator_class * classes)
    descend(generator, tape, generator_loss)
    for number in range(STEPS):
        real_images, real_labels = images[number::STEPS], labels[number::STEPS]
        attack_seed, fake_seed = seeds[1 + 2 * number : 3 + 2 * number]
        if stage.attacker is not None:
            real_images = attacked_by_hand(stage, real_images, real_labels, attack_seed, weights)
        noise, asked = generator_inputs(fake_seed, BATCH, 6, CLASSES)
        fake_images = generator((noise, asked), training=True)
        discriminator.power_iteration()
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
    ("attacker", "losses", "weights", "fake_classes"),
    [
        (make_attacker(), split, SplitAsCode(), False),
        (make_attacker(random_start=True), ac_gan, AcGanAsCode(), True),
        (None, split, SplitAsCode(), False),
    ],
    ids=["split", "ac_gan with a random start", "no attacker"],
)
def test_a_step_of_cotraining_is_that_of_the_paper(attacker, losses, weights, fake_classes):
    make = functools.partial(make_cotraining, attacker, losses(weights), keras.optimizers.SGD)
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


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_has_the_losses_of_float32_but_for_rounding_and_float32_variables(precision):
    def make():  # without an attack, whose signs turn a rounding into a step
        keras.utils.set_random_seed(0)
        return [make_cotraining(attacker=None), make_finetuning(make_generator(), None, fake_weight=0.5)]

    expected = [train(stage, 1) for stage in make()]
    keras.mixed_precision.set_global_policy(precision)
    for stage, exact in zip(make(), expected):
        first = train(stage, 1)
        for name in exact:
            if name in ("generator_loss", "loss"):  # those of the first update
                np.testing.assert_allclose(first[name], exact[name], rtol=0.03, err_msg=name)
        variables = [variable for model in stage.players.values() for variable in model.trainable_variables]
        assert {variable.dtype for variable in variables} == {tf.float32}
        scaled = {
            isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) for optimizer in stage.optimizers.values()
        }
        assert scaled == {precision == "mixed_float16"}


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make", [make_cotraining, lambda **xla: make_finetuning(make_generator(), fake_weight=0.5, **xla)]
)
def test_xla_makes_the_same_step(make, replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        plain, compiled = (make(optimizer=keras.optimizers.SGD, jit_compile=xla) for xla in (False, True))
    for name, model in plain.players.items():
        compiled.players[name].set_weights(model.get_weights())
    if isinstance(plain, FineTuning):
        compiled.generated.generator.set_weights(plain.generated.generator.get_weights())
    metrics = [train(stage, 1) for stage in (plain, compiled)]
    for player, model in plain.players.items():
        for one, other in zip(model.weights, compiled.players[player].weights):
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6, err_msg=one.name)  # float32 rounding
    for name, value in metrics[0].items():
        np.testing.assert_allclose(value, metrics[1][name], rtol=1e-4, err_msg=name)


# ------------------------------------------------------------------------------------------------------- replicas


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


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD, pytest.param(keras.optimizers.Adam, marks=pytest.mark.slow)]
)
def test_cotraining_on_two_replicas_equals_one(optimizer):
    one, two = on_two_replicas(lambda: make_cotraining(optimizer=optimizer))
    metrics_one, metrics_two = train(one, 10), train(two, 10)
    # Weights, u and running statistics. Sums in another order: float32 rounding of ten steps, of 30 updates together,
    # which Adam's division by small second moments enlarges.
    tolerance = 5e-6 if optimizer is keras.optimizers.SGD else 1e-3
    for model in ("generator", "average_generator", "discriminator"):
        for a, b in zip(getattr(one, model).weights, getattr(two, model).weights):
            # A bias in front of a batch norm has no gradient but rounding, which Adam blows up to whole steps; the
            # running mean, nothing else, goes along with it.
            in_front_of_norm = "bias" in a.name and "to_image" not in a.name
            if optimizer is keras.optimizers.Adam and "generator" in model and (in_front_of_norm or "mean" in a.name):
                continue
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=tolerance, err_msg=f"{model} {a.name}")
    for name, value in metrics_one.items():
        np.testing.assert_allclose(value, metrics_two[name], rtol=1e-3, err_msg=name)


def test_finetuning_on_two_replicas_equals_one():
    one, two = on_two_replicas(lambda: make_finetuning(optimizer=keras.optimizers.SGD))
    metrics_one, metrics_two = train(one, 3), train(two, 3)
    for a, b in zip(one.classifier.weights, two.classifier.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-6, err_msg=a.name)  # float32 rounding
    np.testing.assert_allclose(metrics_one["loss"], metrics_two["loss"], rtol=1e-5)


def test_random_starts_differ_between_replicas():
    strategy = mirrored(("CPU:0", "CPU:1"))
    with strategy.scope():
        stage = make_finetuning(attacker=make_attacker(random_start=True))
    images, labels = tf.zeros([2, *SHAPE]), tf.zeros([2], tf.int32)
    attack = tf.function(lambda: strategy.run(stage.attack, args=(images, labels, tf.constant([1, 2]))))
    first, second = strategy.experimental_local_results(attack())
    assert not np.array_equal(first.numpy(), second.numpy())


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


# ------------------------------------------------------------------------------------------------------ fine-tuning


def test_finetuning_freezes_the_generator_and_leaves_the_real_fake_head():
    generator = make_generator()
    stage = make_finetuning(generator, fake_weight=0.5)
    frozen = weights(generator)
    head = weights(stage.classifier.discriminator.source_head)[:2]
    metrics = train(stage)
    assert all(same(frozen, generator))
    for old, new in zip(head, stage.classifier.discriminator.source_head.trainable_variables):
        np.testing.assert_array_equal(old, new.numpy())
    assert set(metrics) == {
        "loss",
        "classifier_gradient_norm",
        "classifier_weight_norm",
        "class_accuracy",
        "fake_class_accuracy",
    }


def test_finetuning_without_generator_and_attacker_is_standard_training():
    stage = make_finetuning(attacker=None, optimizer=keras.optimizers.SGD)
    images, labels = next(iter(batches(1)))
    twin = ClassBranch(make_discriminator())
    twin(images)
    twin.set_weights(stage.classifier.get_weights())
    twin.power_iteration()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, twin(images), from_logits=True))
    gradients = tape.gradient(loss, twin.class_variables)
    train(stage, 1)
    for variable, gradient, trained in zip(twin.class_variables, gradients, stage.classifier.class_variables):
        # Mean over the batch by two routes: float32 rounding.
        np.testing.assert_allclose(trained.numpy(), (variable - 0.01 * gradient).numpy(), atol=1e-6)


def test_the_average_classifier_is_the_result_where_there_is_one():
    stage = make_finetuning(average_decay=0.9)
    stage.start()
    assert stage.result is stage.average_classifier
    assert all(same(weights(stage.classifier), stage.average_classifier))
    before = weights(stage.classifier)
    train(stage, 1)
    for average, old, new in zip(weights(stage.average_classifier), before, weights(stage.classifier)):
        np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)  # at step 0 the decay is 1 / 10
    assert make_finetuning().result.name == "class_branch"


@pytest.mark.parametrize(("with_generator", "fake_weight"), [(True, 0.0), (False, 0.5), (True, -1.0)])
def test_a_weight_that_contradicts_the_generator_is_refused(with_generator, fake_weight):
    with pytest.raises(ValueError, match="fake_weight"):
        make_finetuning(make_generator() if with_generator else None, fake_weight=fake_weight)


# ------------------------------------------------------------------------------------- objectives, other classifiers


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def kind(objective):
    return type(objective).__name__


OBJECTIVES = [Adversarial(), Adversarial(margin_loss), Trades(), LipschitzRegularised(weight=0.5)]
RANDOM_START = make_attacker(random_start=True)


def make_eq_6(classifier=None, objective=OBJECTIVES[0], **options):
    """Fine-tuning of a classifier on real images and those of a generator."""
    return FineTuning(
        classifier() if classifier else ClassBranch(make_discriminator()),
        FromGenerator(make_generator()),
        num_examples=80,
        seed=7,
        objective=objective,
        fake_weight=0.5,
        epochs=1,
        batch_size=BATCH * STEPS,
        **{"attacker": RANDOM_START, "optimizer": keras.optimizers.SGD, "schedule": schedule, **options},
    )


def small_resnet():
    return PreActResNet18(CLASSES, SHAPE, base_width=2)


def small_vgg():
    return VGG16(CLASSES, SHAPE, base_width=2)


@pytest.mark.parametrize("objective", [slow(OBJECTIVES[0]), slow(OBJECTIVES[1]), *OBJECTIVES[2:]], ids=kind)
def test_every_objective_weighs_generated_images_with_lambda(objective):
    # With the random numbers of a step known, its loss can be computed by itself; without an attack and with one.
    stage = make_eq_6(objective=objective)
    images, labels = next(iter(batches(1)))
    attack_seed, fake_seed = step_seeds(7, stage.step, 2)
    fake_images, fake_labels = stage.generated.sample(fake_seed, BATCH * STEPS)
    images, labels = tf.concat([images, fake_images], 0), tf.concat([labels, fake_labels], 0)
    adversarial = stage.attack(images, labels, attack_seed)
    assert float(tf.reduce_max(tf.abs(adversarial - images))) > 0.05
    before = stage.classifier.get_weights()
    stage.classifier.power_iteration()
    each, _ = objective.loss(stage.classifier, images, adversarial, labels, True)
    half = BATCH * STEPS
    expected = np.mean(each[:half]) + 0.5 * np.mean(each[half:])
    stage.classifier.set_weights(before)
    np.testing.assert_allclose(train(stage, 1)["loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES[2:], ids=kind)
@pytest.mark.parametrize("how", [slow("replicas"), "accumulation", slow("xla")])
def test_objectives_make_the_same_step_on_replicas_in_parts_and_compiled(objective, how):
    class StartAside(Attacker):
        """Starts beside the images, and alike on any number of replicas."""

        def start(self, images, seed):
            return tf.clip_by_value(images + 0.05 * tf.cos(20 * images), -1, 1)

    def make(**options):
        attacker = StartAside(LInf(0.1), steps=3, relative_step_size=0.5, random_start=True)
        return make_eq_6(objective=objective, attacker=attacker, **options)

    if how == "replicas":
        one, other = on_two_replicas(make)
    else:
        one, other = make(), make(**{"accumulation": 4} if how == "accumulation" else {"jit_compile": True})
    other.classifier.set_weights(one.classifier.get_weights())
    other.generated.generator.set_weights(one.generated.generator.get_weights())
    metrics_one, metrics_other = train(one, 2), train(other, 2)
    for a, b in zip(one.classifier.weights, other.classifier.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)  # float32 rounding
    np.testing.assert_allclose(metrics_one["loss"], metrics_other["loss"], rtol=1e-4)


@pytest.mark.parametrize(
    ("classifier", "objective"),
    [
        (None, OBJECTIVES[3]),
        (small_resnet, OBJECTIVES[0]),
        slow(None, OBJECTIVES[0]),
        slow(small_resnet, OBJECTIVES[3]),
    ],
)
def test_eq_6_on_two_replicas_equals_one(classifier, objective):
    one, two = on_two_replicas(lambda: make_eq_6(classifier, objective, attacker=make_attacker()))
    two.generated.generator.set_weights(one.generated.generator.get_weights())
    # One step: a sum in another order may send an image over the edge of a ReLU, and the attack's sign with it.
    metrics_one, metrics_two = train(one, 1), train(two, 1)
    for a, b in zip(one.classifier.weights, two.classifier.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-4, err_msg=a.name)
    for name, value in metrics_one.items():
        np.testing.assert_allclose(value, metrics_two[name], rtol=1e-2, err_msg=name)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", slow("mixed_float16")])
@pytest.mark.parametrize("objective", [slow(OBJECTIVES[2]), OBJECTIVES[3]], ids=kind)
@pytest.mark.parametrize("classifier", [slow(None), small_resnet])
def test_objectives_have_the_loss_of_float32_under_mixed_precision_but_for_rounding(precision, objective, classifier):
    keras.mixed_precision.set_global_policy(precision)
    low = make_eq_6(classifier, objective)
    keras.mixed_precision.set_global_policy("float32")
    high = make_eq_6(classifier, objective)
    high.classifier.set_weights(low.classifier.get_weights())
    high.generated.generator.set_weights(low.generated.generator.get_weights())
    # Roundings of 0.4 % (bfloat16) in up to 18 layers, through which a derivative goes once more, across edges of ReLU.
    tolerance = 0.15 if isinstance(objective, LipschitzRegularised) else 0.05
    np.testing.assert_allclose(train(low, 1)["loss"], train(high, 1)["loss"], rtol=tolerance)


@pytest.mark.parametrize(
    ("classifier", "objective", "xla"),
    [
        (small_vgg, OBJECTIVES[0], False),
        slow(small_resnet, OBJECTIVES[2], False),
        slow(small_resnet, OBJECTIVES[0], True),
        slow(small_vgg, OBJECTIVES[2], True),
    ],
)
def test_any_classifier_can_be_trained_with_an_average_that_answers(classifier, objective, xla):
    stage = make_eq_6(classifier, objective, average_decay=0.9, jit_compile=xla)
    stage.start()
    frozen = weights(stage.generated.generator)
    before = weights(stage.classifier)
    train(stage, 1)
    assert all(same(frozen, stage.generated.generator))
    # At step 0 the decay is 1 / 10; running averages are averaged, too.
    for average, old, new in zip(weights(stage.average_classifier), before, weights(stage.classifier)):
        np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)
    # Running averages too.
    assert sum(same(before, stage.classifier)) < len(before) / 4
    images = tf.random.uniform([4, *SHAPE], -1, 1)
    assert stage.result is stage.average_classifier
    np.testing.assert_array_equal(stage.result.inference_copy()(images), stage.result(images))


def test_the_attack_leaves_no_trace_in_batch_norm():
    stage = make_eq_6(small_resnet)
    before = weights(stage.classifier)
    images, labels = next(iter(batches(1)))
    stage.attack(images, labels, tf.constant([1, 2]))
    assert all(same(before, stage.classifier))


def test_trades_works_on_the_statistics_of_clean_and_of_attacked_images():
    stage = make_eq_6(small_resnet, Trades())
    norm = stage.classifier.blocks[0].norm_1
    images = tf.random.uniform([4, *SHAPE], -1, 1)
    stage.objective.loss(stage.classifier, images, 0.5 * images, tf.constant([0, 1, 2, 0]), True)
    means = [tf.reduce_mean(stage.classifier.conv(x), axis=[0, 1, 2]) for x in (images, 0.5 * images)]
    expected = 0.9 * (0.1 * means[0]) + 0.1 * means[1]  # two updates of the running average
    np.testing.assert_allclose(norm.moving_mean, expected, atol=1e-6)


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="FineTuning.objective must be an objective such as @adversarial"):
        make_finetuning(objective="trades")
    with pytest.raises(ValueError, match="needs an attacker with a random start"):
        make_finetuning(objective=Trades())
    other = Generator(CLASSES + 1, SHAPE, base_width=4, multipliers=(2, 1), upsample=(True,), latent_dim=6)
    with pytest.raises(ValueError, match="has classes 4, the classifier 3"):
        make_finetuning(other, fake_weight=0.5)
