"""Fine-tuning on small networks: its objectives, any classifier, what goes together."""

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
    make_discriminator,
    make_finetuning,
    make_generator,
    on_two_replicas,
    same,
    schedule,
    train,
    weights,
)
from steps import take_steps

from robgan_tf.keras2 import keras
from robgan_tf.layers.batch_norm import BatchNorm
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.classifiers.keras_classifier import KerasClassifier
from robgan_tf.players.classifiers.preact_resnet import PreActResNet18
from robgan_tf.players.classifiers.vgg import VGG16
from robgan_tf.players.generator import Generator
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.mixing import CutMix
from robgan_tf.training.objectives import Adversarial, LipschitzRegularised, Mart, Trades
from robgan_tf.training.optimization import one_cycle
from robgan_tf.training.randomness import step_seeds
from robgan_tf.training.weight_perturbation import AdversarialWeightPerturbation


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


def small_network(batch_norm=True):
    """A network that is traced in no time."""
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Conv2D(4, 3, input_shape=SHAPE),
            *([BatchNorm()] if batch_norm else []),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )
    return KerasClassifier(network)


def make_recipe(**options):
    """Fine-tuning of a small network on real images, with what the strongest classifiers are trained with."""
    options = {
        "attacker": RANDOM_START,
        "optimizer": lambda learning_rate: keras.optimizers.SGD(
            learning_rate, 0.9, nesterov=True, weight_decay=1e-2, global_clipnorm=1.0
        ),
        "schedule": lambda updates_per_epoch, updates: one_cycle(updates_per_epoch, updates, peak=0.1),
        "average_decay": 0.5,
        **options,
    }
    keras.utils.set_random_seed(1)
    classifier = options.pop("classifier", None) or small_network()
    stage = FineTuning(classifier, num_examples=80, seed=7, epochs=1, batch_size=BATCH * STEPS, **options)
    stage.start()
    return stage


def test_the_average_has_averaged_statistics_of_batch_norm_that_a_resumed_stage_continues(tmp_path):
    """Weights and running averages of five steps, averaged by hand; and a second stage that goes on after two."""
    stage = make_recipe(generated=None, label_smoothing=0.1)
    take_step, iterator = stage.step_function(), iter(batches(5))
    expected = [np.float64(weight) for weight in weights(stage.classifier)]
    for step in range(5):
        if step == 2:
            path = tf.train.Checkpoint(**stage.checkpoint_objects()).save(str(tmp_path / "stopped"))
        take_step(iterator)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights(stage.classifier))]
    for average, value in zip(stage.average_classifier.weights, expected):
        np.testing.assert_allclose(average, value, atol=1e-5, err_msg=average.name)
    assert len(expected) == 8 and stage.result is stage.average_classifier  # gamma, beta, and the two statistics

    resumed = make_recipe(generated=None, label_smoothing=0.1)
    tf.train.Checkpoint(**resumed.checkpoint_objects()).restore(path).assert_consumed()
    take_steps(resumed, batches(5).skip(2), 3)
    for one, other in zip(stage.average_classifier.weights, resumed.average_classifier.weights):
        np.testing.assert_array_equal(one, other)


def small_batches(images):
    return batches(10).unbatch().batch(images, drop_remainder=True)


def test_with_a_share_of_generated_images_the_batch_stays_as_large_and_all_weigh_the_same():
    stage = make_recipe(generated=FromGenerator(make_generator()), generated_share=0.75, average_decay=0.0)
    assert (stage.images_per_step, stage.total_steps, stage.attacked_at_once) == (2, 10, 8)
    images, labels = next(iter(small_batches(2)))
    attack_seed, fake_seed = step_seeds(7, stage.step, 2)
    fake_images, fake_labels = stage.generated.sample(fake_seed, 6)
    images, labels = tf.concat([images, fake_images], 0), tf.concat([labels, fake_labels], 0)
    adversarial = stage.attack(images, labels, attack_seed)
    before = stage.classifier.get_weights()
    each, logits = stage.objective.loss(stage.classifier, images, adversarial, labels, True)
    stage.classifier.set_weights(before)
    metrics = take_steps(stage, small_batches(2), 1)
    np.testing.assert_allclose(metrics["loss"], np.mean(each), rtol=1e-5)
    right = np.argmax(logits, axis=1) == labels.numpy()
    np.testing.assert_allclose(metrics["class_accuracy"], right[:2].mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["fake_class_accuracy"], right[2:].mean(), rtol=1e-6)


def test_shares_of_nothing_and_of_all():
    without = make_recipe(generated=None)
    nothing = make_recipe(generated=FromGenerator(make_generator()), generated_share=0.0)
    nothing.classifier.set_weights(without.classifier.get_weights())
    assert train(without, 1) == train(nothing, 1)
    # Of generated images alone: the real image that is read for each replica has no part in it.
    stages = [make_recipe(generated=FromGenerator(make_generator()), generated_share=1.0) for _ in range(2)]
    stages[1].generated.generator.set_weights(stages[0].generated.generator.get_weights())
    metrics = [take_steps(stage, small_batches(1).skip(skip), 2) for skip, stage in enumerate(stages)]
    assert metrics[0] == metrics[1] and "class_accuracy" not in metrics[0] and stages[0].images_per_step == 1


@pytest.mark.parametrize("how", ["replicas", "accumulation"])
def test_the_whole_recipe_makes_the_same_step_on_replicas_and_in_parts(how):
    """A share of generated images, CutMix, label smoothing, AWP, Nesterov, clipping, one cycle and the average."""

    def make(**options):
        return make_recipe(
            generated=FromGenerator(make_generator()),
            generated_share=0.5,
            mixing=CutMix(),
            weight_perturbation=AdversarialWeightPerturbation(0.05),
            label_smoothing=0.1,
            attacker=make_attacker(),
            **options,
        )

    if how == "replicas":
        one, other = on_two_replicas(make)
    else:  # batch norm would see the statistics of parts
        one, other = (make(classifier=small_network(batch_norm=False), accumulation=parts) for parts in (1, 2))
        other.classifier.set_weights(one.classifier.get_weights())
    other.start()
    one.start()
    other.generated.generator.set_weights(one.generated.generator.get_weights())
    metrics = [take_steps(stage, small_batches(4), 2) for stage in (one, other)]
    for stage_result in (lambda stage: stage.classifier, lambda stage: stage.result):
        for a, b in zip(stage_result(one).weights, stage_result(other).weights):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)  # float32 rounding
    for name, value in metrics[0].items():
        np.testing.assert_allclose(value, metrics[1][name], rtol=1e-3, err_msg=name)


def test_mixed_labels_need_an_objective_and_an_attack_that_take_them():
    make_recipe(generated=None, mixing=CutMix(), objective=Trades())
    with pytest.raises(ValueError, match="FineTuning.mixing needs an objective .* Mart takes one class"):
        make_recipe(generated=None, mixing=CutMix(), objective=Mart())
    with pytest.raises(ValueError, match="and margin_loss, which the attack maximises, takes one class"):
        make_recipe(generated=None, mixing=CutMix(), objective=Adversarial(margin_loss))
    make_recipe(generated=None, mixing=CutMix(), objective=Adversarial(margin_loss), attacker=None)
    with pytest.raises(ValueError, match=r"FineTuning.mixing must be .* such as @cutmix\(\), .* or None, got 'cutmix'"):
        make_recipe(generated=None, mixing="cutmix")


def test_label_smoothing_is_in_the_loss_and_not_in_the_attack():
    stage, plain = make_finetuning(label_smoothing=0.3), make_finetuning()
    plain.classifier.set_weights(stage.classifier.get_weights())
    images, labels = next(iter(batches(1)))
    seed = step_seeds(7, stage.step, 2)[0]
    adversarial = stage.attack(images, labels, seed)
    np.testing.assert_array_equal(adversarial, plain.attack(images, labels, seed))
    plain.classifier.power_iteration()
    targets = 0.7 * np.eye(CLASSES)[labels] + 0.1
    expected = -(targets * tf.nn.log_softmax(plain.classifier(adversarial))).numpy().sum(-1).mean()
    np.testing.assert_allclose(train(stage, 1)["loss"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="label_smoothing needs an objective .* Mart takes one class"):
        make_finetuning(objective=Mart(), label_smoothing=0.1)


@pytest.mark.parametrize(("with_generator", "fake_weight"), [(True, 0.0), (False, 0.5), (True, -1.0)])
def test_a_weight_that_contradicts_the_generator_is_refused(with_generator, fake_weight):
    with pytest.raises(ValueError, match="fake_weight"):
        make_finetuning(make_generator() if with_generator else None, fake_weight=fake_weight)


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
