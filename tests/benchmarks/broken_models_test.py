"""Broken classifiers are found by checks that are independent of each other; of honest ones none fails."""

import json

import broken_models
import pytest
import tensorflow as tf
from broken import honest, models
from broken.networks import digits

from robgan_tf.data.preprocessing import to_pixel_range


def first_quick(names):
    """All but the first take minutes together."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.long) for name in others)]


@pytest.mark.slow
@pytest.mark.parametrize("name", first_quick(honest.MODELS))
def test_an_honest_classifier_passes_quietly(name):
    found = broken_models.evaluate(honest.MODELS[name](), 100)
    assert not found["failed"], [check for check in found["checks"] if check["status"] == "fail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", first_quick(["hard near the data", "right on the test alone", "hash-seeded noise", "early exit"])
)
def test_a_broken_classifier_fails_two_independent_checks(name):
    found = broken_models.evaluate(models.MODELS[name].make(), 100)
    assert broken_models.independent(found["failed"]) >= 2, found["failed"]


def test_broken_classifiers_are_right_on_clean_images_and_wrong_under_adaptive_attacks():
    """They would not fool anyone else."""
    test = digits().test.take(60)
    for name in ("hard near the data", "early exit", "quantised logits", "gradient turns off the grid"):
        model = models.MODELS[name]
        right = tf.argmax(model.make()(to_pixel_range(test.images)), -1, tf.int32) == test.labels
        assert tf.reduce_mean(tf.cast(right, tf.float32)) > 0.9, name
    # It answers as the plain network behind it, whatever it hides.
    true = broken_models.true_accuracy(models.early_exit(), models.plain, 60)
    assert true == broken_models.true_accuracy(models.plain(), models.plain, 60) < 0.6


def test_checks_that_look_at_the_same_thing_count_once():
    alike = ["Gradients are not zero", "Gradients agree with finite differences"]
    assert broken_models.independent(alike) == 1
    assert broken_models.independent([*alike, "White box beats transfer"]) == 2 and broken_models.independent([]) == 0


def test_results_are_written_so_that_they_can_be_read_and_gone_on_with():
    check = {"name": "One", "status": "pass", "value": 0.5, "message": "", "examples": 2, "found": 1}
    row = {"name": "some", "failed": [], "checks": [{**check, "interval": [0.0, 1.0], "detectable": 0.12345678}] * 2}
    text = broken_models.as_text({"epsilon": 0.2}, [row, row])
    read = json.loads(text)
    assert read["epsilon"] == 0.2 and [one["name"] for one in read["rows"]] == ["some", "some"]
    assert read["rows"][0]["checks"][1] == {
        "name": "One", "status": "pass", "message": "", "examples": 2, "found": 1, "detectable": 0.1235
    }  # fmt: skip
    assert broken_models.as_text({"epsilon": 0.2}, read["rows"]) == text
