"""Accuracy under attack."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.evaluation.robustness import RobustnessEvaluation, Withstands
from robgan_tf.players.attacker import Attacker
from robgan_tf.players.threat_model import LInf


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


def attacker(epsilon=0.3, **options):
    return Attacker(LInf(epsilon), steps=10, relative_step_size=0.2, **options)


@pytest.mark.parametrize("count", [1, 16, 37])
def test_linear_classifier_falls_exactly_where_the_ball_reaches_its_border(count):
    examples = stripes(count)
    withstands = Withstands(brightness, attacker(), batch_size=16)
    for epsilon in (0.1, 0.3, 0.6):
        np.testing.assert_array_equal(withstands(examples, epsilon), margin(examples) > epsilon)


def test_every_example_counts_once_on_two_replicas_in_its_order(two_replicas):
    examples = stripes(37)
    with two_replicas.scope():
        # 15 is no multiple of 2, and 37 none of 16.
        withstands = Withstands(brightness, attacker(), batch_size=15)
        np.testing.assert_array_equal(withstands(examples), margin(examples) > 0.3)


def test_clean_accuracy_needs_no_attacker_and_no_examples_are_no_error():
    assert Withstands(brightness, None, 8)(stripes(20)).all()
    assert Withstands(brightness, None, 8)(stripes(20).select(np.zeros(20, bool))).shape == (0,)


def test_report_has_the_curve_of_both_splits_and_all_settings():
    data = ImageData("stripes", ("dark", "light"), stripes(60, 1), stripes(10, 2), stripes(40, 3))
    evaluation = RobustnessEvaluation(attacker(random_start=True), (0.0, 0.1, 0.3), batch_size=16, seed=5)
    lines = []
    report = evaluation(brightness, data, lines.append)
    assert report["dataset"] == "stripes" and report["split"] == "test" and report["examples"] == 40
    assert report["pixel_range"] == [-1.0, 1.0]
    assert report["attack"] == {
        "name": "pgd",
        "norm": "linf",
        "steps": 10,
        "relative_step_size": 0.2,
        "random_start": True,
        "objective": "cross-entropy",
        "counting": "cumulative",
        "seed": 5,
    }
    assert report["train"]["examples"] == 40
    for split, examples in (("test", data.test), ("train", data.train.take(40, 5))):
        curve = (report if split == "test" else report[split])["curve"]
        assert [point["epsilon"] for point in curve] == [0.0, 0.1, 0.3]
        assert [point["epsilon_255"] for point in curve] == [0.0, 12.75, 38.25]
        for point in curve:
            assert point["accuracy"] == np.mean(margin(examples) > point["epsilon"])
    assert report["clean"] == report["curve"][0]["accuracy"] == 1.0
    assert len(lines) == 6


def test_an_image_that_fell_once_stays_fallen():
    """A classifier that is right only near one shade: larger balls do not count an image again."""

    def bump(images):
        shade = tf.reduce_mean(images, axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(shade), 0.01 - tf.abs(shade - 0.5)], axis=-1)

    images = np.full([4, 4, 4, 1], 191, np.uint8)  # 0.498 on [-1, 1], within the bump
    examples = Examples(images, np.ones(4, np.int32))
    data = ImageData("bump", ("out", "in"), examples, examples, examples)
    curve = RobustnessEvaluation(attacker(), (0.0, 0.1, 0.5))(bump, data)["curve"]
    accuracies = [point["accuracy"] for point in curve]
    assert accuracies[0] == 1.0 and accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize("epsilons", [(), (0.1, 0.2), (0.0, 0.2, 0.1), (0.0, 0.1, 0.1)])
def test_epsilons_must_rise_from_zero(epsilons):
    with pytest.raises(ValueError, match="must rise from 0"):
        RobustnessEvaluation(attacker(), epsilons)


def test_an_epsilon_that_the_steps_cannot_reach_is_found_before_anything_is_done():
    short = Attacker(LInf(0.1), steps=10, step_size=0.01)
    with pytest.raises(ValueError, match="can't reach epsilon = 0.2"):
        RobustnessEvaluation(short, (0.0, 0.1, 0.2))
