import functools
import itertools

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss, logistic
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.gradients import magnified
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.attacker.pgd import PGD, Attacker
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.players.discriminator import Discriminator

every_norm = pytest.mark.parametrize("norm, epsilon", [(LInf, 0.1), (L2, 1.0)])
SEED = tf.constant([1, 2])
LABELS = tf.constant([0, 1, 2, 0, 1, 2, 0, 1])


def random_images(shape=(8, 8, 8, 3)):
    """Images in [-1, 1], a third of their pixels at the ends of the range."""
    images = np.random.default_rng(0).uniform(-1.5, 1.5, shape)
    return tf.constant(np.clip(images, -1, 1), tf.float32)


def eighths(shape=(4, 3, 2, 1)):
    """Images of multiples of 1/8: with steps that are powers of two all sums are exact."""
    return np.random.default_rng(0).integers(-8, 9, shape).astype(np.float32) / 8


def loss_of(network):
    """What co-training maximises: the loss of both heads."""

    def loss(images):
        verdict = network(images, training=False)
        return logistic(verdict.source, real=True) + class_loss(verdict.classes, LABELS[: len(images)])

    return loss


def no_gradient(images):
    """An loss without a gradient: the attack ends where it starts."""
    return 0.0 * tf.reduce_sum(images, axis=[1, 2, 3])


def bn_classifier():
    """A small classifier with batch norm, its running averages somewhere."""
    network = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", input_shape=(8, 8, 3)),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    network(random_images() + 1, training=True)
    return network


# ---- where it ends


@every_norm
@pytest.mark.parametrize("random_start", [False, True])
def test_result_is_in_the_ball_in_the_range_and_worse_for_the_network(norm, epsilon, random_start, make_discriminator):
    images, loss = random_images(), loss_of(make_discriminator())
    attacker = Attacker(norm(epsilon), 5, relative_step_size=0.3, random_start=random_start)
    adversarial = attacker(images, loss, SEED)
    assert adversarial.shape == images.shape and adversarial.dtype == tf.float32
    assert np.abs(adversarial).max() <= 1
    size = norm(epsilon).size(adversarial - images).numpy()
    assert size.max() <= epsilon + 1e-6  # rounding of pixels: 2**-24 each, 192 of them in the l2 norm
    assert size.min() > 0.5 * epsilon
    before, after = loss(images).numpy(), loss(adversarial).numpy()
    assert (after > before).all() and after.mean() > before.mean() + 0.1


@every_norm
def test_more_steps_find_a_higher_loss(norm, epsilon, make_discriminator):
    images, loss = random_images(), loss_of(make_discriminator(spectral_norm=False))
    one, ten = (
        np.mean(loss(Attacker(norm(epsilon), steps, relative_step_size=length)(images, loss)))
        for steps, length in ((1, 1.0), (20, 0.1))
    )
    assert ten > one


def test_one_step_of_epsilon_is_fgsm(make_discriminator):
    # Goodfellow et al. (2015): x + epsilon sign(gradient), within the range of pixels.
    images, loss = random_images(), loss_of(make_discriminator())
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(loss(images))
    epsilon = np.float32(1 / 16)
    expected = np.clip(images + epsilon * np.sign(tape.gradient(total, images)), -1, 1)
    adversarial = Attacker(LInf(1 / 16), 1, step_size=1 / 16)(images, loss).numpy()
    np.testing.assert_allclose(adversarial, expected, atol=2**-24, rtol=0)  # one rounding of a pixel


def test_on_a_linear_model_linf_reaches_the_best_corner_exactly():
    # The maximum of <w, x'> in the ball is x + epsilon sign(w) in each entry, cut at the range of pixels.
    images = eighths()
    weight = np.random.default_rng(1).normal(size=images.shape[1:]).astype(np.float32)
    attacker = Attacker(LInf(0.25), 4, step_size=0.0625)
    adversarial = attacker(tf.constant(images), lambda images: tf.reduce_sum(weight * images, axis=[1, 2, 3]))
    assert np.abs(images + 0.25 * np.sign(weight)).max() > 1  # some are cut
    np.testing.assert_array_equal(adversarial, np.clip(images + 0.25 * np.sign(weight), -1, 1))


def test_on_a_linear_model_l2_goes_along_the_weights():
    # The maximum of <w, x'> in the ball is x + epsilon w / |w|, here inside the range of pixels.
    images = eighths() / 2
    weight = np.random.default_rng(1).normal(size=images.shape[1:]).astype(np.float32)
    attacker = Attacker(L2(0.5), 5, relative_step_size=0.5)  # goes further than the border, which it follows
    adversarial = attacker(tf.constant(images), lambda images: tf.reduce_sum(weight * images, axis=[1, 2, 3]))
    expected = images + 0.5 * weight / np.linalg.norm(weight)
    np.testing.assert_allclose(adversarial, expected, atol=1e-6)  # float32, five steps


def test_each_image_is_attacked_by_itself(make_discriminator):
    images, network = random_images(), make_discriminator()
    attacker = Attacker(LInf(0.1), 3, relative_step_size=0.5)
    together = attacker(images, loss_of(network))
    alone = attacker(images[:1], loss_of(network))
    # The order of sums may depend on the batch; a sign would turn over only where a gradient is zero to 1e-7.
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


def test_steps_are_counted():
    # Along a constant gradient n steps go n times the step's size, until the border.
    images = tf.zeros([1, 2, 2, 1])
    ends = [
        np.max(Attacker(LInf(1 / 4), steps, step_size=1 / 16)(images, lambda x: tf.reduce_sum(x, [1, 2, 3])))
        for steps in (4, 5)
    ]
    assert ends == [1 / 4, 1 / 4]
    calls = []

    def loss(images):
        calls.append(images.numpy().max())
        return tf.reduce_sum(images, [1, 2, 3])

    Attacker(LInf(1 / 4), 5, step_size=1 / 16)(images, loss)
    assert calls == [0, 1 / 16, 2 / 16, 3 / 16, 4 / 16]


@every_norm
def test_without_a_gradient_and_a_random_start_images_stay(norm, epsilon):
    images = random_images()
    adversarial = Attacker(norm(epsilon), 3, relative_step_size=0.5)(images, no_gradient)
    np.testing.assert_array_equal(adversarial, images)


@every_norm
def test_epsilon_zero_returns_the_images(norm, epsilon):
    images = random_images()
    attacker = Attacker(norm(epsilon), 3, relative_step_size=0.5, random_start=True).with_epsilon(0.0)
    np.testing.assert_array_equal(attacker(images, no_gradient, SEED), images)


# ---- the random start


@every_norm
def test_random_start_depends_on_the_seed_alone_and_differs_by_image(norm, epsilon):
    images = tf.zeros([4, 3, 3, 1])
    attacker = Attacker(norm(epsilon), 2, relative_step_size=0.5, random_start=True)
    one, same, other = (attacker(images, no_gradient, tf.constant(seed)).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(one, same)
    assert (np.abs(one - other).max((1, 2, 3)) > 0.1 * epsilon / 9).all()
    for first, second in itertools.combinations(one, 2):
        assert np.abs(first - second).max() > 0.1 * epsilon / 9
    assert (0 < norm(epsilon).size(one)).numpy().all() and (norm(epsilon).size(one) <= epsilon).numpy().all()


def test_a_random_start_without_a_seed_is_refused():
    with pytest.raises(ValueError, match="random start needs a seed"):
        Attacker(LInf(0.1), 2, relative_step_size=0.5, random_start=True)(random_images(), no_gradient)


# ---- it leaves no trace


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_u_and_batch_norm_statistics_are_bit_identical_after_an_attack(compiled, make_discriminator):
    discriminator, classifier = make_discriminator(), bn_classifier()
    variables = discriminator.variables + classifier.variables
    assert {"u:0", "moving_mean:0"} <= {variable.name.split("/")[-1] for variable in variables}
    before = [variable.numpy() for variable in variables]
    attack = Attacker(LInf(0.1), 3, relative_step_size=0.5, random_start=True)
    attack = tf.function(attack) if compiled else attack
    attack(random_images(), loss_of(discriminator), SEED)
    attack(random_images(), lambda images: class_loss(classifier(images, training=False), LABELS), SEED)
    for old, new in zip(before, variables):
        np.testing.assert_array_equal(old, new)


def test_no_gradient_flows_from_an_update_into_the_attack(make_discriminator):
    network, images = make_discriminator(), random_images()
    with tf.GradientTape() as tape:
        tape.watch(images)
        adversarial = Attacker(LInf(0.1), 2, relative_step_size=0.5)(images, loss_of(network))
        loss = tf.reduce_sum(adversarial**2)
    assert tape.gradient(loss, [images, *network.trainable_variables]) == [None] * (
        1 + len(network.trainable_variables)
    )


def test_an_attack_within_an_update_gives_the_gradient_of_one_before_it(make_discriminator):
    network = make_discriminator()
    attack = functools.partial(Attacker(LInf(0.1), 2, relative_step_size=0.5), random_images(), loss_of(network))
    before = attack()
    gradients = []
    for make in (lambda: before, attack):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(make()).source)
        gradients.append(tape.gradient(loss, network.blocks[0].conv_1.kernel))
    np.testing.assert_array_equal(*gradients)


# ---- graphs


@every_norm
def test_a_graph_and_eager_mode_give_the_same(norm, epsilon, make_discriminator):
    loss = loss_of(make_discriminator())
    attacker = Attacker(norm(epsilon), 3, relative_step_size=0.5, random_start=True)
    eager = attacker(random_images(), loss, SEED)
    graph = tf.function(lambda images, seed: attacker(images, loss, seed))(random_images(), SEED)
    np.testing.assert_allclose(graph, eager, atol=1e-6)  # float32; graphs may be ordered differently


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", [LInf, L2])
def test_a_graph_of_unknown_batch_size_serves_any(channels, norm, make_discriminator):
    network = make_discriminator(image_shape=(8, 8, channels))
    attacker = Attacker(norm(0.1), 2, relative_step_size=0.5, random_start=True)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, channels])])
    def attack(images):
        return attacker(images, lambda images: network(images).source, SEED)

    for count in (1, 3):
        images = random_images((count, 8, 8, channels))
        expected = attacker(images, lambda images: network(images).source, SEED)
        np.testing.assert_allclose(attack(images), expected, atol=1e-6)  # float32; graphs may be ordered differently


def test_the_number_of_steps_does_not_grow_the_graph(make_discriminator):
    loss = loss_of(make_discriminator())

    def operations(steps):
        function = tf.function(lambda images: Attacker(LInf(0.1), steps, relative_step_size=0.5)(images, loss))
        return len(function.get_concrete_function(random_images()).graph.as_graph_def().node)

    assert operations(3) == operations(30)


# ---- contradictions


def test_an_epsilon_that_the_steps_cannot_reach_is_refused_with_what_would_do():
    # The released code's setting for 32 px: 5 x 0.0078 = 0.039 < 0.0625.
    with pytest.raises(ValueError) as error:
        Attacker(LInf(0.0625), 5, step_size=0.0078)
    assert str(error.value).startswith(  # gin adds where it was called from
        "The attack can't reach epsilon = 0.0625 (7.97/255): 5 steps of 0.0078 go 0.039 at most. "
        "Take at least 9 steps, or a step_size of at least 0.0125."
    )
    with pytest.raises(ValueError, match="5 steps of 0.00625 go 0.03125 at most"):
        Attacker(LInf(0.0625), 5, relative_step_size=0.1)
    Attacker(LInf(0.0625), 9, step_size=0.0078)
    Attacker(LInf(0.0625), 5, step_size=0.0125)


def test_the_advised_step_size_is_allowed():
    with pytest.raises(ValueError, match="a step_size of at least 0.106333") as error:
        Attacker(LInf(0.638), 6, step_size=0.05)
    Attacker(LInf(0.638), 6, step_size=float(str(error.value).split("at least ")[2].split()[0].rstrip(".")))


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 10, 20, 49])
def test_steps_that_just_reach_epsilon_are_allowed_and_a_little_less_is_not(steps):
    for epsilon in np.arange(0.0, 0.1, 0.01):  # the paper's evaluation
        Attacker(LInf(epsilon), steps, relative_step_size=1 / steps)
        if epsilon:
            Attacker(LInf(epsilon), steps, step_size=epsilon / steps)
            with pytest.raises(ValueError, match="can't reach"):
                Attacker(LInf(epsilon), steps, step_size=0.9999 * epsilon / steps)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(threat_model=0.1), r"Attacker.threat_model must be a threat model such as @LInf\(\), got 0.1"),
        (dict(steps=0), "Attacker.steps must be a whole number >= 1, got 0; for no attack set the attacker to None"),
        (dict(steps=-3), "Attacker.steps must be a whole number >= 1, got -3"),
        (dict(steps=2.5), "Attacker.steps must be a whole number >= 1, got 2.5"),
        (dict(step_size=None), r"exactly one of Attacker.step_size \(got None\).*relative_step_size \(got None\)"),
        (dict(relative_step_size=0.5), r"exactly one of Attacker.step_size \(got 0.05\).*_step_size \(got 0.5\)"),
        (dict(step_size=0.0), "Attacker.step_size must be a number > 0, or None, got 0"),
        (dict(step_size=-0.1), "Attacker.step_size must be a number > 0, or None, got -0.1"),
        (
            dict(step_size=None, relative_step_size=-1),
            "Attacker.relative_step_size must be a number > 0, or None",
        ),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Attacker(**{"threat_model": LInf(0.1), "steps": 4, "step_size": 0.05, **settings})


@pytest.mark.parametrize("step_size", [float("nan"), float("inf")])
def test_a_step_size_that_is_no_number_is_refused(step_size):
    with pytest.raises(ValueError, match="step"):
        Attacker(LInf(0.1), 4, step_size=step_size)


# ---- another epsilon


def test_with_another_epsilon_relative_steps_scale_and_the_rest_stays():
    attacker = Attacker(L2(0.5), 7, relative_step_size=0.25, random_start=True)
    other = attacker.with_epsilon(2.0)
    assert (type(other.threat_model), other.threat_model.epsilon, other.step_size) == (L2, 2.0, 0.5)
    assert (other.steps, other.random_start, other.relative_step_size) == (7, True, 0.25)
    assert (attacker.threat_model.epsilon, attacker.step_size) == (0.5, 0.125)


def test_with_another_epsilon_absolute_steps_stay_and_must_still_reach_it():
    attacker = Attacker(LInf(0.1), 5, step_size=0.02)
    assert attacker.with_epsilon(0.05).step_size == 0.02
    with pytest.raises(ValueError, match="can't reach epsilon = 0.2"):
        attacker.with_epsilon(0.2)


def test_another_epsilon_keeps_the_norm_whatever_gin_says():
    gin.parse_config("L2.epsilon = 0.2\nAttacker.step_size = 0.3")
    other = Attacker(L2(), 5, step_size=0.1).with_epsilon(0.5)
    assert (type(other.threat_model), other.threat_model.epsilon, other.step_size) == (L2, 0.5, 0.1)


@every_norm
def test_one_graph_serves_many_radii(norm, epsilon, make_discriminator):
    loss = loss_of(make_discriminator())
    attacker = Attacker(norm(epsilon), 3, relative_step_size=0.5, random_start=True)
    attack = tf.function(lambda radius: attacker.with_epsilon(radius)(random_images(), loss, SEED))
    for radius in (epsilon, epsilon / 2):
        expected = attacker.with_epsilon(radius)(random_images(), loss, SEED)
        # float32; graphs may be ordered differently
        np.testing.assert_allclose(attack(tf.constant(radius)), expected, atol=1e-6)
    assert attack.experimental_get_tracing_count() == 1


def test_report_holds_all_settings():
    assert Attacker(LInf(0.5), 4, relative_step_size=0.25, random_start=True).describe() == {
        "name": "pgd",
        "label": "PGD-4 on class_loss",
        "norm": "linf",
        "steps": 4,
        "relative_step_size": 0.25,
        "random_start": True,
        "samples": 1,
        "last_point": True,
        "loss": "class_loss",
        "targets": 0,
        "restarts": 1,
    }


def test_in_words_it_says_steps_start_and_ball():
    attacker = Attacker(LInf(0.5), 4, relative_step_size=0.25, random_start=True)
    assert str(attacker) == (
        "4 steps of 0.125 (15.94/255), random start, in the linf ball, epsilon 0.5 on [-1, 1] = 63.75/255"
    )


# ---- names of configurations


def test_configurations_of_former_names_make_the_same_attack():
    gin.parse_config(
        """
        evaluation/PGD.attacker = @evaluation/Attacker()
        evaluation/PGD.objective = @margin_loss
        evaluation/PGD.restarts = 2
        evaluation/Attacker.threat_model = @LInf()
        evaluation/Attacker.steps = 5
        evaluation/Attacker.relative_step_size = 0.25
        evaluation/Attacker.random_start = True
        LInf.epsilon = 0.25
        new/PGD.threat_model = @LInf()
        new/PGD.steps = 5
        new/PGD.relative_step_size = 0.25
        new/PGD.random_start = True
        new/PGD.loss = @margin_loss
        new/PGD.restarts = 2
        """
    )
    old, new = (gin.get_configurable(f"{scope}/PGD")() for scope in ("evaluation", "new"))
    assert isinstance(old, Attack) and old.threat_model == new.threat_model == LInf(0.25)
    assert old.describe() == new.describe() and old.loss is not class_loss and not old.last_point


def test_an_attacker_and_settings_of_its_own_are_refused():
    attacker = Attacker(LInf(0.1), 1, relative_step_size=1.0)
    with pytest.raises(ValueError, match="either PGD.attacker or threat model, steps and momentum"):
        PGD(steps=3, attacker=attacker)
    with pytest.raises(ValueError, match="PGD.attacker must be such as @evaluation/Attacker"):
        PGD(attacker=LInf(0.1))


# ---- what it keeps in an evaluation


def bump_classifier(images):
    """One pixel x: class 1 wins within 0.1 of x = 0.25, class 0 elsewhere."""
    x = images[:, 0, 0, 0]
    return tf.stack([tf.zeros_like(x), 0.1 - tf.abs(x - 0.25)], axis=-1)


def test_a_point_that_fooled_on_the_way_is_kept_and_the_last_one_is_not():
    # In steps of 0.2 from x = 0, up the margin: 0.2 (margin 0.05: fools), 0.4 (-0.05), back to 0.2, to 0.4 at the end.
    image, label, seed = tf.zeros([1, 1, 1, 1]), tf.constant([0]), tf.constant([1, 2])
    settings = {"steps": 4, "step_size": 0.2, "loss": margin_loss}
    last = PGD(LInf(0.5), **settings, last_point=True).fool(bump_classifier, image, label, seed)
    kept = PGD(LInf(0.5), **settings).fool(bump_classifier, image, label, seed)
    np.testing.assert_allclose(last.numpy().item(), 0.4, rtol=1e-6)
    np.testing.assert_allclose(kept.numpy().item(), 0.2, rtol=1e-6)
    # In training no point is kept, whatever it is set to.
    trained = PGD(LInf(0.5), **settings)(image, lambda images: margin_loss(bump_classifier(images), label))
    np.testing.assert_array_equal(trained, last)


def test_each_image_has_its_first_broken_point_or_its_last_one():
    # x = 0 has margins -2 for class 0 and 2 for class 1: the second image is wrong from the start, the first never.
    def logits(images):
        x = images[:, 0, 0, 0]
        return tf.stack([2.0 - x, x], axis=-1)

    images, labels = tf.zeros([2, 1, 1, 1]), tf.constant([0, 1])
    attack = PGD(LInf(0.5), 2, step_size=0.25, loss=margin_loss)
    found = attack.fool(logits, images, labels, tf.constant([1, 2])).numpy().ravel()
    # The first goes up to 0.5 and never fools.
    np.testing.assert_array_equal(found, [0.5, 0.0])
    # A random classifier may answer otherwise the next time: there the worst point is the safest. Margins of the second
    # are 2 - 2x, the highest at the last point.
    worst = PGD(LInf(0.5), 2, step_size=0.25, loss=margin_loss, samples=2)
    found = worst.fool(logits, images, labels, tf.constant([1, 2])).numpy().ravel()
    np.testing.assert_array_equal(found, [0.5, -0.5])


def test_broken_images_leave_the_batch_and_the_others_go_on():
    seen = []

    def logits(images):
        x = images[:, 0, 0, 0]
        tf.py_function(lambda images: seen.append(len(images)), [images], [])
        return tf.stack([0.4 - x, x - 0.4], axis=-1)

    # From 0 the first four need two steps of 0.25, one whose pixel is 0.3 needs one, and one at 0.5 none; from -0.5
    # the last two never arrive.
    starts = np.array([0.0] * 4 + [0.3, 0.5] + [-0.5] * 2, np.float32)
    attack = PGD(LInf(0.5), 3, step_size=0.25, loss=margin_loss)
    graph = tf.function(lambda images, labels: attack.fool(logits, images, labels, tf.constant([1, 2])))
    found = graph(starts.reshape([8, 1, 1, 1]), tf.zeros([8], tf.int32)).numpy().ravel()
    np.testing.assert_allclose(found, [0.5] * 4 + [0.55, 0.5] + [0.0] * 2, rtol=1e-6)
    # Those that are broken leave once they are more than an eighth: two of eight after the second step.
    assert seen == [8, 8, 6]


def test_samples_average_the_gradient_of_a_random_classifier():
    """Each pass turns the gradient's sign with probability 0.3: of one pass it errs so often, of 99 never."""

    def logits(images):
        sign = tf.where(tf.random.uniform([len(images), 1]) < 0.3, -1.0, 1.0)
        return tf.concat([tf.zeros_like(sign), sign * images[:, 0, 0] - 0.5], axis=1)

    images, labels = tf.zeros([64, 1, 1, 1]), tf.zeros([64], tf.int32)

    def reached(samples):
        attack = PGD(LInf(0.25), 1, step_size=0.25, loss=margin_loss, samples=samples)
        return attack.fool(logits, images, labels, tf.constant([1, 2])).numpy().ravel()

    # 64 draws of probability 0.3: fewer than 5 errors have a probability of 1e-5; a majority of 99 errs with 1e-5 each.
    assert np.sum(reached(1) < 0) >= 5
    np.testing.assert_array_equal(reached(99), np.full(64, 0.25))


def test_samples_are_averaged_in_training_too():
    images = tf.zeros([2, 1, 1, 1])
    attack = PGD(LInf(0.25), 2, step_size=0.25, samples=3)
    found = attack(images, lambda images: -tf.reduce_sum((images - [[[0.1]]]) ** 2, axis=[1, 2, 3]))
    np.testing.assert_array_equal(found.numpy().ravel(), [0.0, 0.0])  # up to 0.25, beyond the maximum, and back


# ---- precision


def discriminator_of(precision, weights=None):
    keras.mixed_precision.set_global_policy(precision)
    network = Discriminator(3, (8, 8, 3), base_width=4, multipliers=(1, 2, 2), downsample=(True, False, False))
    if weights is not None:
        network.set_weights(weights)
    return network


@pytest.mark.parametrize("margin", [0.0, 6.0, 14.0])
def test_under_float16_an_attack_moves_what_the_network_is_sure_of_like_in_float32(margin):
    """A margin of 14 makes a cross-entropy of 2e-6, whose gradient in a pixel float16 can't hold."""

    def one_step(network):
        def loss(images):
            logits = network(images, training=False).classes + margin * tf.one_hot(LABELS, 3)
            return class_loss(logits, LABELS)

        images = random_images() / 2  # within the range, so that every pixel may move
        return np.sign(Attacker(LInf(0.1), 1, step_size=0.1)(images, loss) - images)

    single = discriminator_of("float32")
    half = discriminator_of("mixed_float16", single.get_weights())
    alike = np.mean(one_step(half) == one_step(single))
    # What differs are gradients near 0: a few in a hundred in float16, at any margin.
    assert alike > 0.95


def test_float16_magnifies_small_losses_and_gradients_are_those_of_the_loss_again():
    losses = tf.constant([3.0, 0.5, -0.25, 2.0**-10, 0.0])
    same, factor = magnified(losses)
    assert same is losses and factor == 1
    keras.mixed_precision.set_global_policy("mixed_float16")
    large, factors = magnified(losses)
    np.testing.assert_array_equal(factors, np.float32([1, 2, 4, 1024, 4096]))
    np.testing.assert_array_equal(large / factors, losses)
