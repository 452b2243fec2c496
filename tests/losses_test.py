import dataclasses

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import losses
from robgan_tf.losses import AcGanAsCode, SplitAsCode, Weights
from robgan_tf.players.attacker.losses import margin_loss
from robgan_tf.players.discriminator import Verdict

LABELS, FAKE_LABELS = np.array([0, 2, 1]), np.array([1, 1, 0])
# Weights with a prime for each term: no two mistakes cancel.
PRIMES = Weights(2, 3, 5, 7, 11, 13, 17, 19)


def verdict(seed):
    generator = np.random.default_rng(seed)
    return Verdict(
        tf.constant(generator.normal(size=3, scale=3), tf.float32),
        tf.constant(generator.normal(size=[3, 4], scale=3), tf.float32),
    )


REAL, FAKE = verdict(0), verdict(1)


# ---- NumPy's versions, in float64


def bce(logits, target):
    """-target log p - (1 - target) log(1 - p) with p = 1 / (1 + exp(-logit))."""
    probability = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return -target * np.log(probability) - (1 - target) * np.log(1 - probability)


def cross_entropy(logits, labels):
    """-log softmax(logits)[label] = log sum_k exp(logit_k) - logit_label."""
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]


def assert_equal(found, expected):
    """Equal but for float32: losses up to some 100."""
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---- the terms


def test_source_loss_is_the_binary_cross_entropy_with_the_side_it_is_on():
    assert_equal(losses.logistic(REAL.source, real=True), bce(REAL.source, 1))
    assert_equal(losses.logistic(REAL.source, real=False), bce(REAL.source, 0))
    assert_equal(losses.logistic(tf.constant([0.0]), real=True), [np.log(2)])


def test_class_loss_of_probabilities_is_the_mean_over_the_classes():
    shares = np.array([[0.7, 0.2, 0.1, 0.0], [0.25] * 4, [0, 1, 0, 0]])
    each = np.stack([cross_entropy(REAL.classes, np.full(3, k)) for k in range(4)], axis=1)
    assert_equal(losses.class_loss(REAL.classes, tf.constant(shares, tf.float32)), (shares * each).sum(-1))


def test_smoothed_labels_spread_a_share_over_all_classes():
    found = losses.smoothed(LABELS, 4, 0.2)
    np.testing.assert_allclose(found, 0.8 * np.eye(4)[LABELS] + 0.05, rtol=1e-6)
    # As probabilities, they can be smoothed again.
    np.testing.assert_allclose(losses.smoothed(found, 4, 0.5), 0.5 * found + 0.125, rtol=1e-6)


def test_class_loss_is_the_cross_entropy_of_each_image():
    assert_equal(losses.class_loss(REAL.classes, LABELS), cross_entropy(REAL.classes, LABELS))
    assert_equal(losses.class_loss(tf.zeros([2, 4]), [0, 3]), [np.log(4)] * 2)


def test_terms_and_their_gradients_are_exact_at_logits_of_ten_thousand():
    # log(1 + exp(-s)) is 0 at s = 1e4 and -s at -1e4; exp(1e4) itself would overflow even in float64.
    source = tf.constant([1e4, -1e4])
    classes, labels = tf.constant([[1e4, -1e4], [1e4, -1e4]]), tf.constant([0, 1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([source, classes])
        real, fake = losses.logistic(source, real=True), losses.logistic(source, real=False)
        class_loss = losses.class_loss(classes, labels)
    np.testing.assert_array_equal(real, [0, 1e4])
    np.testing.assert_array_equal(fake, [1e4, 0])
    np.testing.assert_array_equal(class_loss, [0, 2e4])
    np.testing.assert_array_equal(tape.gradient(real, source), [0, -1])
    np.testing.assert_array_equal(tape.gradient(fake, source), [1, 0])
    np.testing.assert_array_equal(tape.gradient(class_loss, classes), [[0, 0], [1, -1]])


# ---- the equations


def test_equation_8_has_the_class_of_real_and_of_generated_images():
    expected = (
        2 * bce(REAL.source, 1)
        + 3 * bce(FAKE.source, 0)
        + 5 * cross_entropy(REAL.classes, LABELS)
        + 7 * cross_entropy(FAKE.classes, FAKE_LABELS)
    )
    assert_equal(losses.ac_gan_discriminator_loss(REAL, FAKE, LABELS, FAKE_LABELS, PRIMES), expected)


def test_equation_9_has_the_class_of_real_images_alone():
    expected = 2 * bce(REAL.source, 1) + 3 * bce(FAKE.source, 0) + 5 * cross_entropy(REAL.classes, LABELS)
    assert_equal(losses.split_discriminator_loss(REAL, FAKE, LABELS, FAKE_LABELS, PRIMES), expected)


def test_equations_8_and_9_differ_by_the_class_of_generated_images_and_nothing_else():
    ac_gan, split = (
        equation(REAL, FAKE, LABELS, FAKE_LABELS, PRIMES)
        for equation in (losses.ac_gan_discriminator_loss, losses.split_discriminator_loss)
    )
    np.testing.assert_array_equal(ac_gan, split + 7 * losses.class_loss(FAKE.classes, FAKE_LABELS))
    without = dataclasses.replace(PRIMES, fake_class=0)
    np.testing.assert_array_equal(losses.ac_gan_discriminator_loss(REAL, FAKE, LABELS, FAKE_LABELS, without), split)


@pytest.mark.parametrize(
    "equation, connected", [(losses.split_discriminator_loss, False), (losses.ac_gan_discriminator_loss, True)]
)
def test_class_logits_of_generated_images_have_a_gradient_under_equation_8_alone(equation, connected):
    with tf.GradientTape() as tape:
        tape.watch([REAL.classes, FAKE.classes, REAL.source, FAKE.source])
        loss = equation(REAL, FAKE, LABELS, FAKE_LABELS, PRIMES)
    gradients = tape.gradient(loss, [REAL.classes, FAKE.classes, REAL.source, FAKE.source])
    assert [gradient is not None for gradient in gradients] == [True, connected, True, True]
    if connected:
        # softmax - one-hot
        exponentials = np.exp(FAKE.classes.numpy().astype(np.float64))
        expected = exponentials / exponentials.sum(-1, keepdims=True) - np.eye(4)[FAKE_LABELS]
        np.testing.assert_allclose(gradients[1], 7 * expected, atol=1e-5)  # float32


def test_generator_is_rewarded_for_looking_real_and_of_its_class():
    expected = 11 * bce(FAKE.source, 1) + 13 * cross_entropy(FAKE.classes, FAKE_LABELS)
    assert_equal(losses.generator_loss(FAKE, FAKE_LABELS, PRIMES), expected)


def test_generators_term_does_not_saturate_where_the_discriminator_is_sure():
    # d/ds of -log sigmoid(s) is -1 at s -> -inf, where that of log(1 - sigmoid(s)) is 0.
    source = tf.constant([-50.0])
    with tf.GradientTape() as tape:
        tape.watch(source)
        loss = losses.generator_loss(Verdict(source, tf.zeros([1, 4])), [0], Weights())
    np.testing.assert_array_equal(tape.gradient(loss, source), [-1])


def test_attack_maximises_the_discriminators_loss_on_real_images():
    expected = 17 * bce(REAL.source, 1) + 19 * cross_entropy(REAL.classes, LABELS)
    assert_equal(losses.attack_objective(REAL, LABELS, PRIMES), expected)


def test_equation_10_weighs_the_sum_over_generated_images_with_lambda():
    expected = cross_entropy(REAL.classes, LABELS).sum() + 0.3 * cross_entropy(FAKE.classes[:2], FAKE_LABELS[:2]).sum()
    images = [losses.class_loss(REAL.classes, LABELS), losses.class_loss(FAKE.classes, FAKE_LABELS)[:2]]
    found = losses.fine_tuning_loss(tf.concat(images, axis=0), 3, 0.3)
    assert found.shape == ()
    assert_equal(found, expected)


def test_equation_10_without_generated_images_is_adversarial_training():
    per_image = losses.class_loss(REAL.classes, LABELS)
    np.testing.assert_array_equal(losses.fine_tuning_loss(per_image, 3, 0.0), tf.reduce_sum(per_image))


# ---- terms by reference


def test_hinge_and_its_generators_loss_by_hand():
    source = tf.constant([-3.0, -1.0, 0.5, 1.0, 2.0])
    np.testing.assert_array_equal(losses.hinge(source, real=True), [4, 2, 0.5, 0, 0])
    np.testing.assert_array_equal(losses.hinge(source, real=False), [0, 0, 1.5, 2, 3])
    np.testing.assert_array_equal(losses.hinge_generator(source), [3, 1, -0.5, -1, -2])


def test_wasserstein_is_the_logit_itself_on_the_side_it_is_on():
    source = tf.constant([-3.0, 0.5, 2.0])
    np.testing.assert_array_equal(losses.wasserstein(source, real=True), [3, -0.5, -2])
    np.testing.assert_array_equal(losses.wasserstein(source, real=False), [-3, 0.5, 2])


@pytest.mark.parametrize("make", [losses.split, losses.ac_gan, losses.projection], ids=lambda make: make.__name__)
def test_wasserstein_is_refused_where_all_logits_that_move_together_change_the_loss(make):
    for balanced in (Weights(), Weights(real=0.5, fake=0.5)):
        made = make(balanced, source_loss=losses.wasserstein)
        moved = [Verdict(one.source + 7.0, one.classes) for one in (REAL, FAKE)]
        assert_equal(made.discriminator(*moved, LABELS, LABELS), made.discriminator(REAL, FAKE, LABELS, LABELS))
    with pytest.raises(ValueError, match=r"got real = 0.5 and fake = 1: set \w+.weights = @as_paper\(\)"):
        make(SplitAsCode(), source_loss=losses.wasserstein)
    make(SplitAsCode(), source_loss=losses.hinge)


def test_non_saturating_is_the_binary_cross_entropy_with_real():
    assert_equal(losses.non_saturating(FAKE.source), bce(FAKE.source, 1))


@pytest.mark.parametrize("preset", ["split", "ac_gan"])
def test_gin_exchanges_every_term_by_reference(preset):
    gin.parse_config(
        [
            f"{preset}.weights = @as_paper()",
            f"{preset}.source_loss = @hinge",
            f"{preset}.generator_source_loss = @hinge_generator",
            f"{preset}.attack_class_loss = @margin_loss",
        ]
    )
    bound = getattr(losses, preset)()
    real, fake = np.asarray(REAL.source, np.float64), np.asarray(FAKE.source, np.float64)
    classes = cross_entropy(REAL.classes, LABELS)
    if preset == "ac_gan":
        classes = classes + cross_entropy(FAKE.classes, FAKE_LABELS)
    on_real = np.maximum(0, 1 - real)
    assert_equal(bound.discriminator(REAL, FAKE, LABELS, FAKE_LABELS), on_real + np.maximum(0, 1 + fake) + classes)
    assert_equal(bound.generator(FAKE, FAKE_LABELS), -fake + cross_entropy(FAKE.classes, FAKE_LABELS))
    assert_equal(bound.attack(REAL, LABELS), on_real + margin_loss(REAL.classes, LABELS))


# ---- the projection discriminator


def conditional(verdict, labels):
    """S + C[y], in float64."""
    return np.asarray(verdict.source, np.float64) + np.asarray(verdict.classes, np.float64)[np.arange(3), labels]


def test_projection_judges_source_and_class_by_one_logit():
    gin.parse_config("projection.weights = @as_paper()")
    bound = losses.projection()
    real, fake = conditional(REAL, LABELS), conditional(FAKE, FAKE_LABELS)
    assert_equal(bound.source_logits(REAL, LABELS), real)
    expected = np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)
    assert_equal(bound.discriminator(REAL, FAKE, LABELS, FAKE_LABELS), expected)
    assert_equal(bound.generator(FAKE, FAKE_LABELS), -fake)
    assert_equal(bound.attack(REAL, LABELS), np.maximum(0, 1 - real))


def test_projection_weighs_its_terms_and_takes_the_logistic_loss_too():
    bound = losses.projection(PRIMES, losses.logistic, losses.non_saturating)
    real, fake = conditional(REAL, LABELS), conditional(FAKE, FAKE_LABELS)
    assert_equal(bound.discriminator(REAL, FAKE, LABELS, FAKE_LABELS), 2 * bce(real, 1) + 3 * bce(fake, 0))
    assert_equal(bound.generator(FAKE, FAKE_LABELS), 11 * bce(fake, 1))
    assert_equal(bound.attack(REAL, LABELS), 17 * bce(real, 1))


def test_without_projection_the_source_is_judged_whatever_the_class():
    assert losses.split(Weights()).source_logits(REAL, LABELS) is REAL.source


# ---- presets


def test_weights_of_the_paper_are_all_one():
    assert set(dataclasses.asdict(Weights()).values()) == {1.0} and len(dataclasses.fields(Weights)) == 8


@pytest.mark.parametrize("preset, fake", [(AcGanAsCode, 0.5), (SplitAsCode, 1.0)])
def test_weights_of_the_code_are_a_half_but_for_the_split_losss_generated_images(preset, fake):
    weights = dataclasses.asdict(preset())
    assert weights.pop("fake") == fake
    assert set(weights.values()) == {0.5} and len(weights) == 7


@pytest.mark.parametrize(
    "losses_name, weights_name, equation, weights",
    [
        ("split", "as_paper", losses.split_discriminator_loss, Weights),
        ("split", "split.as_code", losses.split_discriminator_loss, SplitAsCode),
        ("ac_gan", "as_paper", losses.ac_gan_discriminator_loss, Weights),
        ("ac_gan", "ac_gan.as_code", losses.ac_gan_discriminator_loss, AcGanAsCode),
    ],
)
def test_gin_binds_equation_and_weights_by_reference(losses_name, weights_name, equation, weights):
    gin.parse_config(f"{losses_name}.weights = @{weights_name}()")
    bound = getattr(losses, losses_name)()
    assert type(bound.weights) is weights
    for found, expected in [
        (bound.discriminator(REAL, FAKE, LABELS, FAKE_LABELS), equation(REAL, FAKE, LABELS, FAKE_LABELS, weights())),
        (bound.generator(FAKE, FAKE_LABELS), losses.generator_loss(FAKE, FAKE_LABELS, weights())),
        (bound.attack(REAL, LABELS), losses.attack_objective(REAL, LABELS, weights())),
    ]:
        np.testing.assert_array_equal(found, expected)


def test_every_weight_is_a_parameter_in_gin():
    gin.parse_config(["split.weights = @split.as_code()", "split.as_code.fake = 0.25", "split.as_code.attack = 0"])
    assert losses.split().weights == SplitAsCode(fake=0.25, attack=0)


def test_gin_requires_the_weights():
    with pytest.raises(RuntimeError, match="weights"):
        losses.split()
