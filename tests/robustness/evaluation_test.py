"""Accuracy under attack: the curve and the report."""

import json

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import dlr_loss
from robgan_tf.players.attacker.noise import Noise
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import L2, LInf
from robgan_tf.robustness.checks import SanityChecks
from robgan_tf.robustness.evaluation import RobustnessEvaluation


def stripes(count, seed=0):
    """Grey 4x4 images of one shade each, 0..255, of class 1 where they are lighter than 127.5."""
    shades = np.random.default_rng(seed).integers(0, 256, count).astype(np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], [count, 4, 4, 1]).copy()
    return Examples(images, (shades > 127).astype(np.int32))


def brightness(images):
    """Logits of two classes, the sum of all pixels for the second: right on every image of `stripes`."""
    total = tf.reduce_sum(images, axis=[1, 2, 3])
    return tf.stack([tf.zeros_like(total), total], axis=-1)


def margin(examples):
    """The change of every pixel, on [-1, 1], that an l-inf attacker needs to cross 0: the shade itself."""
    return np.abs(examples.images[:, 0, 0, 0] / 127.5 - 1)


def pgd(epsilon=0.3, **options):
    return PGD(LInf(epsilon), steps=10, relative_step_size=0.2, **options)


def stripes_data():
    return ImageData("stripes", ("dark", "light"), stripes(60, 1), stripes(10, 2), stripes(40, 3))


@pytest.mark.parametrize("count", [1, 16, 37])
def test_linear_classifier_falls_exactly_where_the_ball_reaches_its_border(count):
    examples = stripes(count)
    attacked = AttackedClassifier(brightness, pgd(), batch_size=16)
    for epsilon in (0.1, 0.3, 0.6):
        np.testing.assert_array_equal(attacked(examples, epsilon), margin(examples) > epsilon)


def test_every_example_counts_once_on_two_replicas_in_its_order(two_replicas):
    examples = stripes(37)
    with two_replicas.scope():
        # 15 is no multiple of 2, and 37 none of 16.
        attacked = AttackedClassifier(brightness, pgd(random_start=True), batch_size=15)
        np.testing.assert_array_equal(attacked(examples), margin(examples) > 0.3)
        # Each replica's images have random starts of their own.
        batch = next(iter(attacked.batches(stripes(2).select(np.array([0, 0])), 0.01)))
        assert not np.array_equal(batch.adversarial[0], batch.adversarial[1]) or batch.adversarial.std() == 0


def test_graph_is_traced_once_for_all_epsilons_and_numbers_of_images():
    traces = []

    def counted(images):
        traces.append(1)
        return brightness(images)

    attacked = AttackedClassifier(counted, pgd(), batch_size=16)
    attacked(stripes(5), 0.1)
    first = len(traces)
    for count in (1, 16, 33):
        attacked(stripes(count), 0.2)
    assert len(traces) == first


def test_clean_accuracy_needs_no_attack_and_no_examples_are_no_error():
    assert AttackedClassifier(brightness, None, 8)(stripes(20)).all()
    assert AttackedClassifier(brightness, None, 8)(stripes(20).select(np.zeros(20, bool))).shape == (0,)


ATTACKS = [Noise(LInf(0.3), 2), pgd(random_start=True)]


@pytest.fixture(scope="module")
def report():
    """Of the classifier that is right on all stripes, at epsilon 0, 0.1 and 0.3."""
    return RobustnessEvaluation(ATTACKS, (0.0, 0.1, 0.3), batch_size=16, seed=5)(brightness, stripes_data()).report


@pytest.fixture(params=["test", "train"])
def split(request, report):
    """A split's block of the report, and its examples."""
    data = stripes_data()
    return (report, data.test) if request.param == "test" else (report["train"], data.train.take(40, 5))


def test_report_says_what_was_evaluated_and_how(report):
    json.dumps(report)
    assert (report["dataset"], report["class_names"], report["split"]) == ("stripes", ["dark", "light"], "test")
    assert (report["pixel_range"], report["examples"]) == ([-1.0, 1.0], 40)
    assert report["attacks"] == [attack.describe() for attack in ATTACKS]
    assert report["attack"] == {**ATTACKS[0].describe(), "counting": "cumulative", "seed": 5}
    assert report["versions"]["tensorflow"] == tf.__version__ and report["versions"]["keras"].startswith("2.")
    assert [check["status"] for check in report["checks"]] == ["pass"]  # in ball and range


def test_description_of_an_attack_holds_all_settings():
    assert pgd(random_start=True).describe() == {
        "name": "pgd",
        "label": "PGD-10 on class_loss",
        "norm": "linf",
        "steps": 10,
        "relative_step_size": 0.2,
        "random_start": True,
        "samples": 1,
        "last_point": False,
        "loss": "class_loss",
        "targets": 0,
        "restarts": 1,
    }


def test_curve_counts_those_whose_margin_is_above_epsilon(split):
    block, examples = split
    assert block["examples"] == 40
    assert [point["epsilon"] for point in block["curve"]] == [0.0, 0.1, 0.3]
    assert [point["epsilon_255"] for point in block["curve"]] == [0.0, 12.75, 38.25]
    for point in block["curve"]:
        assert point["accuracy"] == np.mean(margin(examples) > point["epsilon"])


def test_each_attack_gets_what_the_ones_before_it_have_left(split):
    standing = 40
    for point in split[0]["curve"]:
        for attack in point["attacks"]:
            assert attack["attacked"] == standing
            standing -= attack["broken"]
            assert attack["accuracy"] == standing / 40
        assert point["accuracy"] == standing / 40


def test_intervals_are_wilsons(split):
    # The p of |k / n - p| <= z sqrt(p (1 - p) / n), z = 1.959964: the roots of p^2 (n + z^2) - p (2 k + z^2) + k^2 / n.
    square = 1.9599639845400545**2
    for point in split[0]["curve"]:
        right = point["accuracy"] * 40
        roots = np.roots([40 + square, -(2 * right + square), right**2 / 40])
        np.testing.assert_allclose(point["interval"], np.clip(sorted(roots), 0, 1), rtol=1e-6)


def test_classes_that_fell_were_taken_for_the_other_one(split):
    block, examples = split
    light, falls = examples.labels == 1, margin(examples) <= 0.3
    assert block["confusion"]["clean"] == [[np.sum(~light), 0], [0, np.sum(light)]]
    assert block["confusion"]["worst_case"] == [
        [np.sum(~light & ~falls), np.sum(~light & falls)],
        [np.sum(light & falls), np.sum(light & ~falls)],
    ]
    assert [entry["examples"] for entry in block["per_class"]] == [np.sum(~light), np.sum(light)]
    assert block["per_class"][1]["worst_case"] == np.mean(~falls[light]) and block["per_class"][1]["clean"] == 1


def test_lipschitz_value_of_the_linear_classifier(split):
    # || d CE / d x ||_2 of two logits (0, s) with s the sum of 16 pixels: sigmoid(-|s|) * 4.
    block, examples = split
    np.testing.assert_allclose(block["lipschitz"]["mean"], np.mean(4 / (1 + np.exp(16 * margin(examples)))), rtol=1e-4)


def test_headline_is_at_the_threat_models_own_epsilon(report):
    assert report["worst_case"]["epsilon"] == report["reference_epsilon"] == 0.3
    robustbench = report["robustbench"]
    assert (robustbench["clean_acc"], robustbench["eps"], robustbench["threat_model"]) == (
        "100.00",
        "38.25/255",
        "Linf",
    )
    assert robustbench["reported"] == f"{100 * report['worst_case']['accuracy']:.2f}"


def test_progress_tells_each_accuracy():
    lines = []
    RobustnessEvaluation(ATTACKS, (0.0, 0.1, 0.3), batch_size=16)(brightness, stripes_data(), lines.append)
    assert sum("accuracy" in line for line in lines) == 6  # three radii of two splits


@pytest.mark.parametrize("is_counted", [True, False])
def test_what_a_check_breaks_lowers_the_accuracy(is_counted):
    def negated(images):
        answers = brightness(images)
        return 2 * tf.stop_gradient(answers) - answers

    # The checks have half of the images; what breaks that much is tried on all.
    checks = SanityChecks(20, 200, 2, is_counted)
    report = RobustnessEvaluation([pgd()], (0.0, 0.1), 16, checks=checks)(negated, stripes_data()).report
    for block, examples in ((report, stripes_data().test), (report["train"], stripes_data().train.take(40))):
        point = block["curve"][-1]
        first, *others = point["attacks"]
        assert first["broken"] == 0 and all(other["label"].startswith("check: ") for other in others)
        exact = np.mean(margin(examples) > 0.3) if is_counted else 1.0
        assert point["accuracy"] == pytest.approx(exact, abs=0.05) and point["accuracy"] >= exact
        assert 1 - sum(other["broken"] for other in others) / 40 == pytest.approx(point["accuracy"])
    assert report["confusion"]["worst_case"][0][1] > 0 or not is_counted


def test_a_class_without_examples_has_no_accuracy():
    dark = stripes(40, 3).select(stripes(40, 3).labels == 0)
    data = ImageData("dark", ("dark", "light"), stripes(60, 1), stripes(10, 2), dark)
    entry = RobustnessEvaluation([pgd()], (0.0,))(brightness, data).report["per_class"][1]
    assert entry == {"name": "light", "examples": 0, "clean": None, "worst_case": None}


def test_pieces_and_batches_do_not_change_the_numbers():
    data = stripes_data()
    whole, pieces = (
        RobustnessEvaluation([pgd()], (0.0, 0.2), batch_size=size)(brightness, data).report for size in (40, 3)
    )
    assert whole["curve"] == pieces["curve"] and whole["confusion"] == pieces["confusion"]


def test_worst_examples_fell_at_the_smallest_epsilon():
    data = stripes_data()
    worst = RobustnessEvaluation([pgd()], (0.0, 0.2, 0.6), batch_size=16)(brightness, data).worst
    assert worst["clean"].shape == worst["adversarial"].shape == (8, 4, 4, 1)
    assert (worst["epsilon"] == sorted(worst["epsilon"])).all() and worst["epsilon"][0] == 0.2
    np.testing.assert_array_equal(worst["labels"], 1 - worst["predictions"])
    shifts = np.abs(worst["adversarial"] - worst["clean"]).max(axis=(1, 2, 3))
    assert (shifts <= worst["epsilon"] + 1e-6).all() and worst["attack"] == ["pgd"] * 8


def test_report_is_written_as_json_and_as_a_page(tmp_path):
    evaluation = RobustnessEvaluation([pgd()], (0.0, 0.2), batch_size=16)(brightness, stripes_data())
    evaluation.write(tmp_path / "robustness.json")
    assert json.loads((tmp_path / "robustness.json").read_text()) == evaluation.report
    assert "stripes" in (tmp_path / "robustness.html").read_text()


def test_an_image_that_fell_once_stays_broken():
    """A classifier that is right only near one shade: larger balls do not count an image again."""

    def bump(images):
        shade = tf.reduce_mean(images, axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(shade), 0.01 - tf.abs(shade - 0.5)], axis=-1)

    images = np.full([4, 4, 4, 1], 191, np.uint8)  # 0.498 on [-1, 1], within the bump
    examples = Examples(images, np.ones(4, np.int32))
    data = ImageData("bump", ("out", "in"), examples, examples, examples)
    curve = RobustnessEvaluation([pgd()], (0.0, 0.1, 0.5))(bump, data).report["curve"]
    accuracies = [point["accuracy"] for point in curve]
    assert accuracies[0] == 1.0 and accuracies == sorted(accuracies, reverse=True)


def test_without_a_gradient_path_it_says_so_and_goes_on_with_black_box_attacks():
    data = stripes_data()
    evaluation = RobustnessEvaluation([pgd(), Noise(LInf(0.3))], (0.0, 0.3), checks=SanityChecks(10, 5, 2))
    lines = []
    found = evaluation(lambda images: brightness(tf.round(images * 127.5) / 127.5), data, lines.append)
    assert "No gradient path leads from answers to images: attacks without gradients only (noise)." == lines[0]
    assert found.report["notes"] == lines[:1] and [attack["name"] for attack in found.report["attacks"]] == ["noise"]
    assert found.report["lipschitz"] is None
    assert any("Gradients reach the images" in line for line in found.failed_checks)


# ---- contradictions


@pytest.mark.parametrize("epsilons", [(), (0.1, 0.2), (0.0, 0.2, 0.1), (0.0, 0.1, 0.1)])
def test_epsilons_must_rise_from_zero(epsilons):
    with pytest.raises(ValueError, match="must rise from 0"):
        RobustnessEvaluation([pgd()], epsilons)


def test_an_epsilon_that_the_steps_cannot_reach_is_found_before_anything_is_done():
    short = PGD(LInf(0.1), steps=10, step_size=0.01)
    with pytest.raises(ValueError, match="can't reach epsilon = 0.2"):
        RobustnessEvaluation([short], (0.0, 0.1, 0.2))


@pytest.mark.parametrize("attacks", [[], [LInf(0.1)]])
def test_attacks_must_be_attacks(attacks):
    with pytest.raises(ValueError, match="must be attacks such as"):
        RobustnessEvaluation(attacks, (0.0, 0.1))


def test_a_worst_case_over_two_norms_is_refused():
    with pytest.raises(ValueError, match="have different norms, l2 and linf"):
        RobustnessEvaluation([pgd(), Noise(L2(0.3))], (0.0, 0.1))


def test_attacks_of_different_epsilons_are_refused():
    with pytest.raises(ValueError, match="different epsilons, 0.1 and 0.3"):
        RobustnessEvaluation([pgd(0.1), Noise(LInf(0.3))], (0.0, 0.1))


@pytest.mark.parametrize(
    "own, epsilons",
    [
        (0.3, [0.0, 0.1, 0.2, 0.3]),
        (0.25, [0.0, 0.1, 0.2, 0.25, 0.3]),
        (0.05, [0.0, 0.05, 0.1, 0.2, 0.3]),
        (0.4, [0.0, 0.1, 0.2, 0.3, 0.4]),
        (0.1 * (1 + 1e-9), [0.0, 0.1 * (1 + 1e-9), 0.2, 0.3]),  # rounding makes no second point
    ],
)
def test_the_threat_models_epsilon_is_evaluated_and_the_headline(own, epsilons):
    evaluation = RobustnessEvaluation([pgd(own)], (0.0, 0.1, 0.2, 0.3))
    assert evaluation.reference_epsilon == own and evaluation.epsilons == epsilons


def test_clean_accuracy_alone_is_a_ball_of_radius_zero():
    assert RobustnessEvaluation([pgd(0.0)], (0.0,)).epsilons == [0.0]


def test_too_few_classes_for_an_attack_are_found_before_anything_is_done():
    evaluation = RobustnessEvaluation([pgd(loss=dlr_loss)], (0.0, 0.1))
    evaluation.check_classes(3)
    with pytest.raises(ValueError, match="dlr_loss needs 3 classes, there are 2: take @margin_loss"):
        evaluation(lambda images: pytest.fail("called"), stripes_data())
