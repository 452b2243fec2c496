import dataclasses

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import losses
from robgan_tf.losses import AcGanAsCode, SplitAsCode, Weights
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
    assert_equal(losses.source_loss(REAL.source, real=True), bce(REAL.source, 1))
    assert_equal(losses.source_loss(REAL.source, real=False), bce(REAL.source, 0))
    assert_equal(losses.source_loss(tf.constant([0.0]), real=True), [np.log(2)])


def test_class_loss_is_the_cross_entropy_of_each_image():
    assert_equal(losses.class_loss(REAL.classes, LABELS), cross_entropy(REAL.classes, LABELS))
    assert_equal(losses.class_loss(tf.zeros([2, 4]), [0, 3]), [np.log(4)] * 2)


def test_terms_and_their_gradients_are_exact_at_logits_of_ten_thousand():
    # log(1 + exp(-s)) is 0 at s = 1e4 and -s at -1e4; exp(1e4) itself would overflow even in float64.
    source = tf.constant([1e4, -1e4])
    classes, labels = tf.constant([[1e4, -1e4], [1e4, -1e4]]), tf.constant([0, 1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([source, classes])
        real, fake = losses.source_loss(source, real=True), losses.source_loss(source, real=False)
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
    found = losses.fine_tuning_loss(REAL.classes, LABELS, FAKE.classes[:2], FAKE_LABELS[:2], 0.3)
    assert found.shape == ()
    assert_equal(found, expected)


def test_equation_10_without_generated_images_is_adversarial_training():
    found = losses.fine_tuning_loss(REAL.classes, LABELS, REAL.classes[:0], LABELS[:0], 0.0)
    np.testing.assert_array_equal(found, tf.reduce_sum(losses.class_loss(REAL.classes, LABELS)))


# ---- what attacks of the evaluation maximise


def test_margin_and_dlr_by_hand():
    logits = tf.constant([[1.0, 5.0, 2.0, 4.0], [7.0, 3.0, 1.0, 2.0]])
    labels, targets = np.array([1, 2]), np.array([2, 1])
    # Image 0, right: sorted 5, 4, 2, 1. Image 1, wrong: sorted 7, 3, 2, 1.
    np.testing.assert_array_equal(losses.margin_loss(logits, labels), [4 - 5, 7 - 1])
    np.testing.assert_array_equal(losses.targeted_margin_loss(logits, labels, targets), [2 - 5, 3 - 1])
    assert_equal(losses.dlr_loss(logits, labels), [-1 / (5 - 2), 6 / (7 - 2)])
    assert_equal(losses.targeted_dlr_loss(logits, labels, targets), [-3 / (5 - 1.5), 2 / (7 - 1.5)])


def test_dlr_does_not_change_with_scale_and_shift_of_the_logits_and_the_margin_scales():
    # Powers of two: exact.
    logits, targets = REAL.classes, (LABELS + 1) % 4
    scaled = 1024 * logits
    np.testing.assert_array_equal(losses.dlr_loss(scaled, LABELS), losses.dlr_loss(logits, LABELS))
    np.testing.assert_array_equal(losses.margin_loss(scaled, LABELS), 1024 * losses.margin_loss(logits, LABELS))
    targeted = losses.targeted_dlr_loss
    np.testing.assert_array_equal(targeted(scaled, LABELS, targets), targeted(logits, LABELS, targets))
    assert_equal(losses.dlr_loss(logits + 8, LABELS), losses.dlr_loss(logits, LABELS))


def test_margin_has_a_gradient_where_the_cross_entropy_has_none():
    logits = tf.constant([[1e4, 0.0, -1e4, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        entropy, margin = losses.class_loss(logits, [0]), losses.margin_loss(logits, [0])
    np.testing.assert_array_equal(tape.gradient(entropy, logits), np.zeros([1, 4]))
    gradient = tape.gradient(margin, logits).numpy()
    assert gradient[0, 0] == -1 and gradient[0, [1, 3]].sum() == 1


def test_equal_logits_are_no_division_by_zero():
    equal = tf.ones([1, 4])
    np.testing.assert_array_equal(losses.dlr_loss(equal, [0]), [0])
    np.testing.assert_array_equal(losses.targeted_dlr_loss(equal, [0], [1]), [0])


def test_dlr_needs_more_classes_than_it_looks_at():
    with pytest.raises(ValueError, match="dlr_loss needs 3 classes, the classifier has 2: take @margin_loss"):
        losses.dlr_loss(tf.zeros([1, 2]), [0])
    with pytest.raises(ValueError, match="needs 4 classes, the classifier has 3: take @targeted_margin_loss"):
        losses.targeted_dlr_loss(tf.zeros([1, 3]), [0], [1])


def test_targets_are_the_wrong_classes_in_the_order_of_their_logits_and_come_again():
    logits, labels = tf.constant([[1.0, 5.0, 2.0, 4.0], [7.0, 3.0, 1.0, 2.0]]), np.array([1, 2])
    found = [losses.likely_wrong_class(logits, labels, rank).numpy().tolist() for rank in range(4)]
    assert found == [[3, 0], [2, 1], [0, 3], [3, 0]]


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
