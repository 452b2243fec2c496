"""Free adversarial training against a computation by hand, what it changes, what it keeps, and what it refuses."""

import gin
import numpy as np
import pytest
import scipy.special
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
    train,
    weights,
)
from steps import take_steps

from robgan_tf.experiment.describe import attack_of
from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.nfgsm import NFGSM
from robgan_tf.players.attacker.pgd import Attacker, MomentumAttacker
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.classifiers.keras_classifier import KerasClassifier
from robgan_tf.training.attack_time import AttackTimer
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.free_training import FreeTraining
from robgan_tf.training.generated import FromGenerator
from robgan_tf.training.mixing import CutMix
from robgan_tf.training.objectives import Adversarial, LipschitzRegularised, Mart, Trades
from robgan_tf.training.randomness import step_seeds
from robgan_tf.training.weight_perturbation import AdversarialWeightPerturbation

RATE, EPSILON, BATCH_SIZE = 0.3, 0.1, BATCH * STEPS


def one_step(ball=None, **options):
    return Attacker(ball or LInf(EPSILON), steps=1, relative_step_size=1.0, **options)


def linear_network():
    layers = keras.layers
    return KerasClassifier(keras.Sequential([layers.InputLayer(SHAPE), layers.Flatten(), layers.Dense(CLASSES)]))


def make(replays=3, classifier=None, generator=None, attacker=None, **options):
    keras.utils.set_random_seed(1)
    stage = FineTuning(
        classifier or linear_network(),
        generator and FromGenerator(generator),
        **{
            **{"num_examples": 80, "seed": 7, "epochs": 3, "batch_size": BATCH_SIZE},
            **{"schedule": RATE, "optimizer": keras.optimizers.SGD, "attacker": attacker or one_step()},
            **options,
        },
        free_training=replays and FreeTraining(replays),
    )
    stage.start()
    return stage


def perturbations(stage):
    return [variable.numpy() for variable in stage.perturbations]


class ByHand:
    """Algorithm 1 for softmax regression: d CE / dW = x' (p - y), d CE / dx = W (p - y), in float64."""

    def __init__(self, stage, replays, ball, decay=0.0):
        self.kernel, self.bias = (weight.astype(np.float64) for weight in weights(stage.classifier))
        self.average, self.decay, self.updates = [self.kernel, self.bias], decay, 0
        self.replays, self.ball = replays, ball
        self.perturbation = 0.0

    def batch(self, images, labels, share):
        """Updates on images whose losses weigh as much as `share` says, each."""
        images, classes = images.astype(np.float64), np.eye(CLASSES)[labels]
        attacked = self.project(images + self.perturbation, images)
        for _ in range(self.replays):
            x = attacked.reshape(len(images), -1)
            errors = (scipy.special.softmax(x @ self.kernel + self.bias, axis=1) - classes) * share[:, np.newaxis]
            in_images = (errors @ self.kernel.T).reshape(images.shape)
            self.kernel, self.bias = self.kernel - RATE * x.T @ errors, self.bias - RATE * errors.sum(0)
            attacked = self.project(attacked + self.ball.epsilon * self.direction(in_images), images)
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            self.average = [decay * a + (1 - decay) * w for a, w in zip(self.average, (self.kernel, self.bias))]
            self.updates += 1
        self.perturbation = attacked - images

    def direction(self, gradient):
        if self.ball.norm == "linf":
            return np.sign(gradient)
        return gradient / np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True))

    def project(self, points, images):
        moved = points - images
        if self.ball.norm == "linf":
            moved = np.clip(moved, -EPSILON, EPSILON)
        else:
            length = np.sqrt((moved**2).sum(axis=(1, 2, 3), keepdims=True))
            moved = moved * np.minimum(1, self.ball.epsilon / np.maximum(length, 1e-12))
        return np.clip(images + moved, -1, 1)


@pytest.mark.parametrize("ball", [LInf(EPSILON), L2(0.5)], ids=lambda ball: ball.norm)
@pytest.mark.parametrize("on", ["one device", "two replicas", "in parts"])
def test_weights_average_and_perturbation_are_those_of_algorithm_1(on, ball, request):
    strategy = request.getfixturevalue("two_replicas") if on == "two replicas" else tf.distribute.get_strategy()
    with strategy.scope():
        stage = make(3, attacker=one_step(ball), average_decay=0.5, accumulation=2 if on == "in parts" else 1)
    expected = ByHand(stage, 3, ball, decay=0.5)
    take_steps(stage, batches(3), 3)
    for images, labels in batches(3).as_numpy_iterator():
        expected.batch(images, labels, np.full(BATCH_SIZE, 1 / BATCH_SIZE))
    for found, value in zip(weights(stage.classifier), (expected.kernel, expected.bias)):
        np.testing.assert_allclose(found, value, atol=1e-5)
    for found, value in zip(weights(stage.average_classifier), expected.average):
        np.testing.assert_allclose(found, value, atol=1e-5)
    (found,) = perturbations(stage)
    np.testing.assert_allclose(found, expected.perturbation, atol=1e-5)
    assert stage.steps_done == 3 and stage.optimizer.iterations.numpy() == 9
    images = next(batches(3).skip(2).as_numpy_iterator())[0]
    assert ball.size(found).numpy().max() <= ball.epsilon * (1 + 1e-6) and np.abs(images + found).max() <= 1
    # It would have been another one without what the first batches left behind.
    alone = ByHand(make(3), 3, ball)
    alone.batch(images, labels, np.full(BATCH_SIZE, 1 / BATCH_SIZE))
    assert np.abs(found - alone.perturbation).max() > EPSILON / 2


def test_generated_images_have_a_perturbation_of_their_own():
    generator = make_generator()
    stage = make(2, generator=generator, fake_weight=0.5)
    expected = ByHand(stage, 2, LInf(EPSILON))
    share = np.repeat([1.0, 0.5], BATCH_SIZE) / BATCH_SIZE
    for step, (images, labels) in enumerate(batches(2).as_numpy_iterator()):
        fakes, classes = stage.generated.sample(step_seeds(7, tf.constant(step, tf.int64), 2)[1], BATCH_SIZE)
        expected.batch(np.concatenate([images, fakes]), np.concatenate([labels, classes]), share)
    frozen = weights(generator)
    take_steps(stage, batches(2), 2)
    assert all(same(frozen, generator))
    for found, value in zip(weights(stage.classifier), (expected.kernel, expected.bias)):
        np.testing.assert_allclose(found, value, atol=1e-5)
    real, fake = perturbations(stage)
    np.testing.assert_allclose(np.concatenate([real, fake]), expected.perturbation, atol=1e-5)


def test_it_trains_the_class_branch_alone():
    stage = make(2, classifier=ClassBranch(make_discriminator()))
    head, before = weights(stage.classifier.discriminator.source_head)[:2], weights(stage.classifier)
    metrics = train(stage, 1)
    for old, new in zip(head, stage.classifier.discriminator.source_head.trainable_variables):
        np.testing.assert_array_equal(old, new.numpy())
    assert sum(same(before, stage.classifier)) < len(before) / 2
    assert set(metrics) == {"loss", "classifier_gradient_norm", "classifier_weight_norm", "class_accuracy"}


@pytest.mark.parametrize("how", ["replicas", "accumulation", pytest.param("xla", marks=pytest.mark.slow)])
def test_with_generated_images_mixing_and_trades_the_step_is_the_same_on_replicas_in_parts_and_compiled(how):
    def make_step(**options):
        return make(
            2,
            generator=make_generator(),
            attacker=one_step(random_start=True),
            objective=Trades(),
            mixing=CutMix(),
            label_smoothing=0.1,
            schedule=0.01,
            **options,
        )

    if how == "replicas":
        one, other = on_two_replicas(make_step)
    else:
        one, other = make_step(), make_step(**{"accumulation": 4} if how == "accumulation" else {"jit_compile": True})
    other.classifier.set_weights(one.classifier.get_weights())
    other.generated.generator.set_weights(one.generated.generator.get_weights())
    started = perturbations(one)
    assert all(0.9 * EPSILON < np.abs(start).max() <= EPSILON for start in started)
    metrics = [train(stage, 1) for stage in (one, other)]
    for a, b in zip(weights(one.classifier), weights(other.classifier)):
        np.testing.assert_allclose(a, b, atol=1e-5)  # float32 rounding
    for start, a, b in zip(started, perturbations(one), perturbations(other)):
        assert np.mean(a != start) > 0.9
        # A gradient that is nothing but rounding has any sign.
        assert np.mean(np.abs(a - b) > 1e-5) < 0.01
    np.testing.assert_allclose(metrics[0]["loss"], metrics[1]["loss"], rtol=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    stage = make(2, average_decay=0.5)
    take_step, iterator = stage.step_function(), iter(batches(4))
    for step in range(4):
        if step == 2:
            path = tf.train.Checkpoint(**stage.checkpoint_objects()).save(str(tmp_path / "stopped"))
        take_step(iterator)
    resumed = make(2, average_decay=0.5)
    tf.train.Checkpoint(**resumed.checkpoint_objects()).restore(path).assert_consumed()
    take_steps(resumed, batches(4).skip(2), 2)
    for one, other in ((stage.classifier, resumed.classifier), (stage.result, resumed.result)):
        assert all(same(weights(one), other))
    np.testing.assert_array_equal(perturbations(stage), perturbations(resumed))


def test_an_epoch_has_as_many_updates_however_often_a_batch_is_used():
    asked = []

    def schedule(updates_per_epoch, updates):
        asked.append((updates_per_epoch, updates))
        return keras.optimizers.schedules.PolynomialDecay(0.1, updates)

    plain, twice, five = (make(replays, schedule=schedule) for replays in (None, 2, 5))
    assert [stage.total_steps for stage in (plain, twice, five)] == [30, 15, 6]  # 3 epochs of 80 images, by 8
    assert [stage.steps_per_epoch for stage in (plain, twice, five)] == [10, 5, 2]
    assert asked == [(10, 30)] * 3
    assert [stage.images_per_step for stage in (plain, twice, five)] == [8] * 3


def test_a_single_replay_is_an_update_on_the_perturbation_of_other_images():
    stage, plain = make(1, attacker=one_step(random_start=True)), make(None)
    images, labels = next(batches(1).as_numpy_iterator())
    attacked = np.clip(images + perturbations(stage)[0], -1, 1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(class_loss(plain.classifier(attacked), labels))
    expected = [w - RATE * g for w, g in zip(weights(plain.classifier), tape.gradient(loss, plain.classifier.weights))]
    train(stage, 1)
    for found, value in zip(weights(stage.classifier), expected):
        np.testing.assert_allclose(found, value, atol=1e-6)


def test_a_share_of_generated_images_alone_works_in_parts():
    stage = make(2, generator=make_generator(), generated_share=1.0, accumulation=2)
    take_steps(stage, batches(3).unbatch().batch(1), 2)
    (found,) = perturbations(stage)
    assert found.shape == (BATCH_SIZE, *SHAPE) and 0.9 * EPSILON < np.abs(found).max() <= EPSILON * (1 + 1e-6)


def test_a_gradient_that_overflows_leaves_the_perturbation_a_number():
    stage = make(1)
    before = perturbations(stage)[0]
    infinite = tf.constant(np.inf, shape=[BATCH_SIZE, *SHAPE])
    images = tf.zeros([BATCH_SIZE, *SHAPE])
    stage.free_training.train(
        stage.attacker, stage.perturbations, images, None, lambda *_: ([infinite], {}), tf.constant(0, tf.int64)
    )
    np.testing.assert_array_equal(perturbations(stage)[0], before)


def test_the_attack_is_told_apart_from_one_with_passes_of_its_own():
    free, plain = make(4), make(None)
    assert plain.attacks_apart and not free.attacks_apart
    assert attack_of(free) == attack_of(plain) + ", a step with each of 4 updates on a batch"
    assert "1 steps of 0.1" in attack_of(free)
    # Outside of training it is FGSM: for a validation that looks for catastrophic over-fitting.
    assert free.attacker.one_step and AttackTimer(free, SHAPE, CLASSES).measure(1)["attack_seconds"] > 0


def test_a_part_of_a_step_has_a_part_of_the_perturbation():
    stage = make(2, generator=make_generator(), fake_weight=0.5)
    part = stage.with_images_at_once(4)
    take_steps(part, batches(2).unbatch().batch(4), 2)
    assert [found.shape[0] for found in perturbations(part)] == [4, 4]
    assert part.updates_per_step == 2 and part.optimizer.iterations.numpy() == 4
    assert [found.shape[0] for found in perturbations(stage)] == [BATCH_SIZE] * 2


def test_gin_makes_it():
    gin.parse_config("free.replays = 8")
    assert FreeTraining().replays == 8


class HalfLoss(Adversarial):
    """An objective of a user's own, whose attack is not of its loss."""

    def loss(self, classifier, images, adversarial, labels, training):
        losses, logits = super().loss(classifier, images, adversarial, labels, training)
        return losses / 2.0, logits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacker": make_attacker()}, "takes one step of PGD with each update, and the attacker is 3 steps of 0.05"),
        ({"attacker": None}, "and the attacker is None: set FineTuning.attacker = @finetuning/Attacker()"),
        ({"attacker": NFGSM(LInf(0.1))}, "and the attacker is a step of 0.1 from noise"),
        (
            {"attacker": MomentumAttacker(0.8, LInf(0.1), steps=1, relative_step_size=1.0)},
            "takes one step of PGD with each update",
        ),
        ({"objective": Mart()}, "with Mart as it is set the attack maximises another one"),
        ({"objective": LipschitzRegularised()}, "with LipschitzRegularised as it is set"),
        ({"objective": HalfLoss()}, "with HalfLoss as it is set"),
        ({"objective": Adversarial(margin_loss)}, "set FineTuning.objective = @adversarial.. with adversarial.attack"),
        ({"weight_perturbation": AdversarialWeightPerturbation()}, "set one of them to None"),
        ({"objective": Trades()}, "needs an attacker with a random start"),
    ],
)
def test_what_does_not_go_with_it_is_refused_with_one_line(options, message):
    options = {"attacker": one_step(), **options}
    with pytest.raises(ValueError, match=message) as error:
        make_finetuning(free_training=FreeTraining(), **options)
    assert "\n" not in str(error.value).split("\n  In call to configurable")[0]  # which gin adds


def test_numbers_out_of_range_and_other_things_are_refused():
    with pytest.raises(ValueError, match="^free.replays must be a whole number >= 1, got 0[.]"):
        FreeTraining(0)
    with pytest.raises(ValueError, match=r"FineTuning.free_training must be .* such as @free\(\), .* or None, got 4"):
        make_finetuning(free_training=4)
