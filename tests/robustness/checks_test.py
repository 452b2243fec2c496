"""An honest classifier passes all checks; each of those that only seem robust fails some."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.players.attacker.apgd import AutoPGD
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import targeted_dlr_loss
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.robustness.answer_checks import check_answers, check_arrays
from robgan_tf.robustness.attack_checks import Trials, unbounded
from robgan_tf.robustness.checks import SanityChecks
from robgan_tf.robustness.evaluation import RobustnessEvaluation

BALL = LInf(0.2)
PGD20 = PGD(BALL, 20, relative_step_size=0.2, random_start=True)


def evaluate(logits, digits, *attacks):
    evaluation = RobustnessEvaluation(attacks, (0.0,), checks=SanityChecks(100, queries=300), test_examples=100)
    return evaluation(logits, digits)


def failed(evaluation):
    return {check["name"] for check in evaluation.report["checks"] if check["status"] == "fail"}


def test_an_honest_classifier_passes_all_checks(honest, digits):
    found = evaluate(honest, digits, PGD20, AutoPGD(BALL, 30), AutoPGD(BALL, 30, targeted_dlr_loss, targets=9))
    checks = found.report["checks"]
    assert {check["status"] for check in checks} == {"pass"}, [check for check in checks if check["status"] != "pass"]
    assert len(checks) == 23 and not found.report["robustbench"]["unreliable"] and not found.failed_checks
    # It is worth the question: right on most images, and on some of them under attack.
    assert found.report["clean"] > 0.9 and 0.4 < found.report["worst_case"]["accuracy"] < 0.9


@pytest.mark.slow
def test_one_step_as_the_evaluations_attack_can_be_checked(honest, digits):
    """FGSM has no random start; the check by restarts has one of its own."""
    found = evaluate(honest, digits, PGD(BALL, 1, relative_step_size=1.0))
    messages = {check["name"]: check["message"] for check in found.report["checks"]}
    more = messages["More steps and restarts find little more"]
    assert more.startswith("PGD-50 on class_loss and PGD-10 on class_loss, 5 restarts broke ")


@pytest.mark.slow
def test_large_logits_are_caught(honest, digits):
    found = failed(evaluate(lambda images: 1e4 * honest(images), digits, PGD20))
    assert {"Gradients are not zero", "Other losses find little more"} <= found


@pytest.mark.slow
def test_a_softmax_on_top_is_caught(honest, digits):
    found = evaluate(lambda images: tf.nn.softmax(honest(images)), digits, PGD20)
    assert "Answers are logits, not probabilities" in failed(found)
    assert found.report["robustbench"]["unreliable"]


@pytest.mark.slow
def test_rounded_input_is_caught(honest, digits):
    # TensorFlow's rounding has no gradient at all; other roundings have one of zero.
    @tf.custom_gradient
    def round_to_eighths(images):
        return tf.round(images * 4) / 4, lambda upstream: tf.zeros_like(upstream)

    found = evaluate(lambda images: honest(tf.round(images * 4) / 4), digits, PGD20, Noise(BALL, 2))
    assert "Gradients reach the images" in failed(found) and "No gradient path" in found.report["notes"][0]
    found = failed(evaluate(lambda images: honest(round_to_eighths(images)), digits, PGD20))
    assert {"Gradients are not zero", "Unbounded attack reaches 0 %", "White box beats black box"} <= found


@pytest.mark.slow
def test_a_noisy_network_is_caught(honest, digits):
    def noisy(images):
        return honest(images + tf.random.normal(tf.shape(images), stddev=0.3))

    found = failed(evaluate(noisy, digits, PGD20))
    assert {"Two clean passes are identical", "Answers do not depend on the batch"} <= found
    assert "Gradients agree with finite differences" in found


@pytest.mark.slow
def test_noise_between_the_8_bit_levels_alone_is_caught(honest, digits):
    def noisy_off_grid(images):
        pixels = (images + 1) * 127.5
        off = tf.reduce_max(tf.abs(pixels - tf.round(pixels)), axis=[1, 2, 3], keepdims=True) > 1e-3
        return honest(tf.where(off, images + tf.random.normal(tf.shape(images), stddev=0.3), images))

    found = failed(evaluate(noisy_off_grid, digits, PGD20))
    assert "Two passes between the 8-bit levels are identical" in found
    assert "Two clean passes are identical" not in found


def test_a_shattered_gradient_is_caught(honest, digits):
    # Rounding, which has no gradient, and under it a ripple too small to matter, which has a wild one.
    @tf.custom_gradient
    def rounded(images):
        return tf.round(images * 8) / 8, lambda upstream: tf.zeros_like(upstream)

    def shattered(images):
        return honest(rounded(images) + 1e-3 * tf.sin(1e3 * images))

    found = failed(evaluate(shattered, digits, PGD20))
    assert {
        "Steps along gradients beat random ones",
        "Unbounded attack reaches 0 %",
        "White box beats black box",
    } <= found
    assert "Gradients are not zero" not in found


def test_a_network_left_in_training_mode_is_caught(honest, digits):
    def normalised_by_batch(images):
        answers = honest(images)
        return answers - tf.reduce_mean(answers, axis=0)

    clean, noise = (AttackedClassifier(normalised_by_batch, attack, 50) for attack in (None, Noise(BALL)))
    checks = check_answers(clean, [noise, noise], digits.test.take(50), is_random=False)
    statuses = {check.name: check.status for check in checks}
    assert statuses["Answers do not depend on the batch"] == "fail"
    assert statuses["Two clean passes are identical"] == "pass"


def test_an_attack_that_leaves_the_ball_is_caught(honest, digits):
    class Cheat(Noise):
        def search(self, start, images, judge, seed):
            return images * 1.5

    attacked = AttackedClassifier(honest, Cheat(BALL, 1), 50)
    attacked(digits.test.take(50))
    assert check_arrays([attacked]).status == "fail" and check_arrays([attacked]).found == 50


def test_unbounded_radius_is_the_diagonal_of_the_cube():
    assert unbounded(LInf(0.1), (3, 4, 1)) == 2.0 and unbounded(L2(0.1), (2, 2, 1)) == 4.0


def test_of_a_weak_classifier_single_images_are_no_failure(honest, digits):
    """The share is of the images that are right clean, where what still stands is few."""
    examples = digits.test.take(40, 0)
    clean = AttackedClassifier(honest, None, 40)
    standing = clean(examples)
    right = int(standing.sum())
    standing[np.flatnonzero(standing)[3:]] = False  # three stand, and will fall in a large ball
    everything = [AttackedClassifier(honest, PGD(LInf(2.0), 20, relative_step_size=0.2, random_start=True), 40)]
    for known, status in ((None, "fail"), (right, "pass")):
        trials = Trials(clean, examples, standing, LInf(2.0), 0)
        check = trials.check("name", everything, 0.1, "meaning", right=known)
        assert (check.found, check.examples, check.status) == (3, known or 3, status), check
        assert not trials.standing.any()


@pytest.mark.parametrize("setting", ["examples", "queries", "more"])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=f"SanityChecks.{setting} must be a whole number >= 1, got 0"):
        SanityChecks(**{setting: 0})
