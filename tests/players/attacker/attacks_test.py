"""All attacks, on a linear classifier, whose worst case has a closed form; and what each of them promises."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import losses
from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.apgd import AutoPGD, checkpoint_spans
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier, is_within
from robgan_tf.players.attacker.losses import dlr_loss, margin_loss, targeted_dlr_loss, targeted_margin_loss
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.pgd import PGD, MomentumAttacker
from robgan_tf.players.attacker.square import Square, bump, square_sides
from robgan_tf.players.attacker.threat_model import L1, L2, LInf
from robgan_tf.players.attacker.transfer import Transfer

CLASSES, SHAPE, COUNT = 5, (6, 7, 2), 120
WEIGHT = np.random.default_rng(0).normal(size=[84, CLASSES]).astype(np.float32)
every_norm = pytest.mark.parametrize("norm, epsilon", [(LInf, 0.05), (L2, 0.4)])


def linear(images):
    return tf.reshape(images, [-1, 84]) @ WEIGHT


def binary(images):
    return linear(images)[:, :2]


def examples_of(classifier):
    """Images far from the ends of the range, each of the class that `classifier` gives it."""
    pixels = np.random.default_rng(1).integers(60, 196, [COUNT, *SHAPE]).astype(np.uint8)
    return Examples(pixels, np.argmax(classifier((pixels / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


@pytest.fixture(scope="module")
def examples():
    return examples_of(linear)


def exactly_robust(classifier, examples, norm, epsilon):
    """Which images no perturbation of the ball can move to another class.

    Against class k the margin <w_y - w_k, x> falls by epsilon times the dual norm of w_y - w_k, l1 for l-inf, l2 for
    l2.
    """
    logits = classifier((examples.images / 127.5 - 1).astype(np.float32)).numpy()
    right = np.arange(COUNT), examples.labels
    margins = np.full(logits.shape, np.inf)
    for k in range(logits.shape[1]):
        others = examples.labels != k
        dual = np.linalg.norm(WEIGHT[:, examples.labels] - WEIGHT[:, [k]], ord=1 if norm is LInf else 2, axis=0)
        margins[others, k] = (logits[right] - logits[:, k] - epsilon * dual)[others]
    return margins.min(axis=1) > 0


def pgd(ball, loss=losses.class_loss, **options):
    return PGD(ball, steps=20, relative_step_size=0.2, loss=loss, **options)


# Between two classes the worst point is that of every loss; among several each class has its own, which a loss over all
# of them may miss, and a target for each does not.
EXACT = {
    "pgd": (binary, lambda ball: pgd(ball)),
    "pgd on the margin": (binary, lambda ball: pgd(ball, margin_loss, random_start=True)),
    "pgd with momentum": (binary, lambda ball: pgd(ball, momentum=0.75)),
    "pgd, all targets": (linear, lambda ball: pgd(ball, targeted_margin_loss, targets=4)),
    "apgd-ce": (binary, lambda ball: AutoPGD(ball, 50)),
    "apgd-t": (linear, lambda ball: AutoPGD(ball, 50, targeted_dlr_loss, targets=4)),
}


@every_norm
@pytest.mark.parametrize("classifier, make", EXACT.values(), ids=EXACT)
def test_attack_along_gradients_finds_the_worst_case_of_a_linear_classifier(norm, epsilon, classifier, make):
    examples = examples_of(classifier)
    exact = exactly_robust(classifier, examples, norm, epsilon)
    assert 0.02 < exact.mean() < 0.5
    np.testing.assert_array_equal(AttackedClassifier(classifier, make(norm(epsilon)), 64)(examples), exact)


@every_norm
@pytest.mark.parametrize("loss", [losses.class_loss, dlr_loss])
def test_untargeted_attack_misses_few_of_several_classes_and_breaks_nothing_that_holds(examples, norm, epsilon, loss):
    exact = exactly_robust(linear, examples, norm, epsilon)
    found = AttackedClassifier(linear, AutoPGD(norm(epsilon), 50, loss), 64)(examples)
    assert not (exact & ~found).any() and (found & ~exact).mean() < 0.03


def test_square_finds_the_worst_case_of_a_linear_classifier_in_linf(examples):
    # Each pixel is a square of its own in the end, and goes to the right corner.
    exact = exactly_robust(linear, examples, LInf, 0.05)
    np.testing.assert_array_equal(AttackedClassifier(linear, Square(LInf(0.05), 1500), 64)(examples), exact)


def test_square_in_l2_breaks_most_of_what_can_be_broken_and_nothing_else(examples):
    exact = exactly_robust(linear, examples, L2, 0.4)
    found = AttackedClassifier(linear, Square(L2(0.4), 1000), 64)(examples)
    assert not (exact & ~found).any()
    # Against 0.70 under noise and 0.05 in truth; the random search had 0.2 at its end here.
    assert found.mean() < 0.35


def test_square_and_noise_never_ask_for_a_gradient(examples):
    @tf.custom_gradient
    def guarded(images):
        def gradient(upstream):
            raise AssertionError("a black-box attack asked for a gradient")

        return linear(images), gradient

    for attack in (Square(LInf(0.05), 20), Square(L2(0.4), 20), Noise(LInf(0.05))):
        assert not attack.needs_gradient
        AttackedClassifier(guarded, attack, 64)(examples)
    with pytest.raises(AssertionError, match="asked for a gradient"):
        AttackedClassifier(guarded, pgd(LInf(0.05)), 64)(examples)


ALL = {
    **{name: make for name, (_, make) in EXACT.items()},
    "apgd-dlr": lambda ball: AutoPGD(ball, 7, dlr_loss),
    "square": lambda ball: Square(ball, 30),
    "noise": lambda ball: Noise(ball, 2),
    "transfer": lambda ball: Transfer(pgd(ball), lambda images: linear(images)[:, ::-1]),
}


@every_norm
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_images_are_in_ball_and_range_and_the_same_for_the_same_seed(examples, norm, epsilon, make):
    bright = Examples(np.where(examples.images > 127, 255, 0).astype(np.uint8), examples.labels)
    attacked = AttackedClassifier(linear, make(norm(epsilon)), 64, seed=3)
    for radius in (0.0, epsilon):
        one, same = (list(attacked.batches(bright, radius)) for _ in range(2))
        for a, b in zip(one, same):
            assert a.adversarial.shape == a.images.shape and a.adversarial.dtype == np.float32
            assert a.valid.all() and is_within(norm(0.0), radius, a.images, a.adversarial).all()
            np.testing.assert_array_equal(a.adversarial, b.adversarial)
            if radius == 0:
                np.testing.assert_array_equal(a.adversarial, a.images)
            else:
                assert np.abs(a.adversarial - a.images).max() > 0


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_all_settings_are_told_and_can_be_written_as_json(make):
    import json

    described = make(LInf(0.05)).describe()
    json.dumps(described)
    assert {"name", "label", "norm"} <= described.keys() and described["norm"] == "linf"
    assert not {"epsilon", "pixel_range"} & described.keys()  # those of the evaluation count


def test_names_are_those_of_the_field():
    ball = LInf(0.05)
    attacks = [PGD(ball, 1, relative_step_size=1.0), pgd(ball), AutoPGD(ball)]
    attacks += [
        AutoPGD(ball, loss=dlr_loss),
        AutoPGD(ball, 100, targeted_dlr_loss, 9),
        Square(ball),
    ]
    assert [attack.name for attack in attacks] == ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "square"]


# ---- contradictions


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda ball: pgd(ball, restarts=2), "would do the same 2 times: set the attacker's random_start"),
        (
            lambda ball: pgd(ball, targeted_dlr_loss),
            "PGD.loss = @targeted_dlr_loss takes target classes",
        ),
        (lambda ball: pgd(ball, targets=3), "takes no target classes, and PGD.targets is 3"),
        (lambda ball: AutoPGD(ball, 0), "AutoPGD.steps must be a whole number >= 1, got 0"),
        (lambda ball: AutoPGD(ball, restarts=0), "AutoPGD.restarts"),
        (lambda ball: AutoPGD(ball, rho=1.5), "AutoPGD.rho must be a number > 0 and <= 1, got"),
        (lambda ball: Square(ball, 0), "Square.queries"),
        (lambda ball: Square(ball, initial_share=0.0), "Square.initial_share must be a number > 0 and <= 1, got"),
        (lambda ball: Square("linf"), "Square.threat_model must be a threat model such as @LInf"),
        (lambda ball: Noise(ball, 0), "Noise.restarts"),
        (lambda ball: pgd(ball, momentum=1.0), "PGD.momentum must be a number >= 0 and < 1, or None, got"),
        (lambda ball: MomentumAttacker(1.0, ball, 5, 0.1), "MomentumAttacker.momentum must be a number"),
        (lambda ball: pgd(ball, samples=0), "PGD.samples must be a whole number >= 1, got 0"),
        (lambda ball: AutoPGD(ball, samples=0), "AutoPGD.samples"),
        (lambda ball: Transfer(ball, linear), "Transfer.attack must be an attack"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(LInf(0.05))


# ---- their parts


def test_checkpoints_of_auto_pgd_are_the_papers():
    # p_j: 0, .22, .41, .57, .70, .80, .87, .93, .99 (section 3.2), of 100 steps.
    spans = checkpoint_spans(100)
    assert [index + 1 for index, span in enumerate(spans) if span] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [span for span in spans if span] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoint_spans(1) == [1] and sum(checkpoint_spans(10)) == 10


def test_auto_pgd_halves_its_step_where_it_jumps_over_the_maximum():
    # The loss -|x - 0.1| around x = 0 with epsilon 1: a step of 2 jumps from border to border for ever, halved ones get
    # within the last step of 0.1. 60 steps have checkpoints 14, 25, 35, ...: at least 6 halvings of 2 are 1/32.
    def bump_at_a_tenth(images):
        loss = -tf.abs(images[:, 0, 0, 0] - 0.1)
        return tf.stack([-loss + 10, tf.zeros_like(loss)], axis=-1)  # right for ever: the loss alone decides

    image = tf.zeros([1, 1, 1, 1])
    found = AutoPGD(LInf(1.0), 60, margin_loss).fool(bump_at_a_tenth, image, tf.constant([0]), tf.constant([1, 2]))
    assert abs(found.numpy().item() - 0.1) < 1 / 32


def test_momentum_attack_follows_the_sum_of_normalised_gradients():
    # One pixel with gradients 1, then -0.5, ...: mean |g| = |g|, so v = 1, then 0.9 - 1 = -0.1: up, then down.
    def loss(images):
        return -((images[:, 0, 0, 0] - 0.05) ** 2)

    attacker = MomentumAttacker(momentum=0.9, threat_model=LInf(1.0), steps=2, step_size=0.5)
    image = tf.zeros([1, 1, 1, 1])
    assert attacker(image, loss).numpy().item() == 0.0  # 0 + 0.5 - 0.5
    once_more = MomentumAttacker(momentum=0.9, threat_model=LInf(1.0), steps=3, step_size=0.5)
    # v = 0.9 * -0.1 + 1 = 0.91: up.
    assert once_more(image, loss).numpy().item() == 0.5


def test_sides_of_squares_shrink_as_in_the_paper():
    # 32 x 32, p = 0.8: sqrt(0.8 * 1024) = 28.6; half the area after 10 of 10,000 queries, 1/512 of it after 8,000.
    sides = square_sides(10000, 0.8, 32, 32)
    assert [sides[index] for index in (0, 10, 11, 51, 201, 8001)] == [29, 29, 20, 14, 10, 1]
    assert sides.dtype == np.int32 and (np.diff(sides) <= 0).all()
    assert square_sides(5, 1.0, 3, 8).max() == 3


def test_bump_of_three_pixels_by_hand():
    # Half 1: row of 3 with 1 in the middle and sums 1 + 1/4 and 1/4, i.e. (1/4, 5/4, 1/4) over its norm.
    top = np.array([[0.25, 1.25, 0.25]]) / np.sqrt(0.25**2 * 2 + 1.25**2)
    # Half 2: 2 x 3 around its second row: the ring around it has 1/4 everywhere.
    bottom = np.array([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]]) / np.sqrt(0.25**2 * 5 + 1.25**2)
    expected = np.concatenate([top, -bottom]) / np.sqrt(2)
    np.testing.assert_allclose(bump(tf.constant(3)), expected, rtol=1e-6)  # float32


def test_runs_go_on_with_those_that_still_stand(examples):
    seen = []

    class Counting(Noise):
        def fool(self, logits, images, labels, seed, run=0):
            tf.py_function(lambda images: seen.append(len(images)), [images], [])
            return super().fool(logits, images, labels, seed, run)

    standing = AttackedClassifier(linear, Counting(LInf(0.05), 3), 1000)(examples)
    assert len(seen) == 3 and seen[0] == COUNT and seen == sorted(seen, reverse=True) and seen[-1] >= standing.sum()


def test_what_leaves_the_ball_does_not_count(examples):
    class Cheat(Noise):
        def search(self, start, images, judge, seed):
            return -images

    attacked = AttackedClassifier(linear, Cheat(LInf(0.05), 1), 64)
    assert attacked(examples).all() and attacked.invalid == attacked.made == COUNT


def test_transfer_attacks_with_the_gradients_of_the_other_classifier(examples):
    # From itself it is the white-box attack; from a constant classifier it moves nothing.
    ball = LInf(0.05)
    exact = exactly_robust(linear, examples, LInf, 0.05)
    np.testing.assert_array_equal(AttackedClassifier(linear, Transfer(pgd(ball), linear), 64)(examples), exact)
    constant = Transfer(pgd(ball), lambda images: 0.0 * linear(images))
    assert AttackedClassifier(linear, constant, 64)(examples).all()


def test_answers_that_are_no_numbers_are_wrong(examples):
    def broken(images):
        return tf.where(images[:, :1, 0, 0] > 0, linear(images), np.nan)

    right = AttackedClassifier(broken, None, 64)(examples)
    np.testing.assert_array_equal(right, examples.images[:, 0, 0, 0] > 127)


def test_a_tie_with_another_class_is_wrong_and_named_as_the_other(examples):
    def tied(images):
        first = tf.zeros(tf.shape(images)[0], tf.int32)
        return tf.one_hot(first, 3) + tf.one_hot(first + 2, 3)

    labels = np.array([0, 2, 1], np.int32)
    (batch,) = AttackedClassifier(tied, None, 8).batches(Examples(examples.images[:3], labels))
    # (1, 0, 1): classes 0 and 2 tie, and class 1 is below both.
    np.testing.assert_array_equal(batch.right, [False, False, False])
    np.testing.assert_array_equal(batch.predictions, [2, 0, 0])


def test_each_stream_of_a_seed_has_random_numbers_of_its_own(examples):
    def adversarial(stream):
        attacked = AttackedClassifier(linear, Noise(LInf(0.05), 1), COUNT, 0, stream)
        (batch,) = attacked.batches(examples)
        return batch.adversarial

    np.testing.assert_array_equal(adversarial(1), adversarial(1))
    assert np.abs(adversarial(0) - adversarial(1)).max(axis=(1, 2, 3)).min() > 0.01  # of 84 pixels, up to 0.1


# ---- training


@pytest.mark.parametrize(
    "make", [ALL["pgd"], ALL["apgd-ce"], lambda ball: Square(ball, 300), lambda ball: Noise(ball, 1)]
)
def test_training_takes_the_same_attacks_with_a_loss_of_its_own(examples, make):
    attack = make(LInf(0.05))
    attack.check_training()
    images = tf.constant(examples.images / np.float32(127.5) - 1)
    weight = tf.constant(WEIGHT[:, 0].reshape(SHAPE))

    def loss(images):
        return tf.reduce_sum(weight * images, axis=[1, 2, 3])

    found = attack(images, loss, tf.constant([1, 2]))
    assert is_within(attack.threat_model, 0.05, images.numpy(), found.numpy()).all()
    # The largest rise in the ball is epsilon times the l1 norm of the weights.
    share = (loss(found) - loss(images)).numpy() / (0.05 * np.abs(WEIGHT[:, 0]).sum())
    if attack.name == "noise":
        assert abs(share.mean()) < 0.1 and np.abs(share).max() < 0.5
    else:
        assert share.mean() > {"pgd": 0.999, "apgd-ce": 0.999, "square": 0.3}[attack.name]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda ball: pgd(ball, random_start=True, restarts=2), "PGD.restarts = 1 and targets = 0, got 2 and 0"),
        (lambda ball: pgd(ball, targeted_margin_loss, targets=1), "got 1 and 1"),
        (ALL["transfer"], "take @Attacker"),
    ],
)
def test_training_refuses_what_needs_a_classifier_or_several_runs(make, message):
    with pytest.raises(ValueError, match=message):
        make(LInf(0.05)).check_training()


# ---- numbers of classes


@pytest.mark.parametrize(
    "make, fewest",
    [
        (lambda ball: pgd(ball), 1),
        (lambda ball: pgd(ball, margin_loss), 1),
        (lambda ball: pgd(ball, targeted_margin_loss, targets=1), 2),
        (lambda ball: AutoPGD(ball, loss=dlr_loss), 3),
        (lambda ball: AutoPGD(ball, loss=targeted_dlr_loss, targets=1), 4),
        (lambda ball: AutoPGD(ball, loss=targeted_dlr_loss, targets=9), 10),
        (lambda ball: Transfer(AutoPGD(ball, loss=dlr_loss), linear), 3),
        (Square, 1),
        (Noise, 1),
    ],
)
def test_attacks_say_how_many_classes_they_need(make, fewest):
    attack = make(LInf(0.05))
    attack.check_classes(fewest)
    if fewest > 1:
        with pytest.raises(ValueError, match="class"):
            attack.check_classes(fewest - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        *(PGD(ball, steps=3, relative_step_size=0.4) for ball in (LInf(0.05), L2(0.4), L1(4.0))),
        MomentumAttacker(0.75, LInf(0.05), steps=3, relative_step_size=0.4),
        *(AutoPGD(ball, steps=5) for ball in (LInf(0.05), L2(0.4), L1(4.0))),
    ],
    ids=str,
)
def test_what_a_stage_may_take_finds_the_same_images_where_xla_compiles_it(attack, examples):
    """From a start that is given, since XLA draws other random numbers; a few steps, since rounding grows with each."""
    attack.check_training()
    attack.check_xla("jit_compile", True)
    images, labels = tf.constant(examples.images / 127.5 - 1, tf.float32), tf.constant(examples.labels)
    start = attack.threat_model.project(images + tf.random.stateless_uniform(images.shape, [1, 2], -0.1, 0.1), images)

    def found(start):
        return attack.ascend(start, images, lambda images: losses.class_loss(linear(images), labels))

    plain, compiled = (tf.function(found, jit_compile=jit)(start).numpy() for jit in (False, True))
    assert np.abs(plain - start).max() > 0.01
    same = np.abs(compiled - plain).max(axis=(1, 2, 3)) < 2e-5
    # Which pixels a step in l1 takes may hang on a rounding.
    assert same.mean() >= (0.95 if isinstance(attack.threat_model, L1) else 1.0)
