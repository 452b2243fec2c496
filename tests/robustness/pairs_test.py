"""Clean and adversarial images side by side."""

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness import pairs


@pytest.fixture
def drawn(monkeypatch):
    """What the grid is drawn from; the grid is drawn all the same."""
    calls = []
    draw = pairs.image_grid

    def recorded(images, columns, row_names, **options):
        calls.append({"images": images, "rows": row_names, **options})
        return draw(images, columns, row_names, **options)

    monkeypatch.setattr(pairs, "image_grid", recorded)
    return calls


def attack_pairs(**options):
    def logits(images):  # brighter or darker than grey
        mean = tf.reduce_mean(images, axis=[1, 2, 3])
        return 4 * tf.stack([-mean, mean], axis=-1)

    # Levels of 255. The attack moves each pixel by 0.25 x 127.5 = 32 levels at most, away from its true class.
    levels, labels = [20, 140, 200, 120, 150], [0, 1, 1, 1, 1]
    images = np.stack([np.full([48, 48, 1], level, np.uint8) for level in levels])
    attack = Attacker(threat_model=LInf(0.25), steps=4, relative_step_size=0.5)
    return pairs.attack_pairs(
        logits, attack, Examples(images, np.array(labels, np.int32)), ("dark", "bright"), 0, **options
    )


def test_examples_that_change_class_come_first_and_misclassified_ones_last(drawn):
    attack_pairs()
    (call,) = drawn
    first = [round(127.5 * (float(image[24, 24, 0]) + 1)) for image in call["images"][::3]]
    assert first == [140, 150, 20, 200, 120]  # 120 is dark, and labelled bright
    assert call["rows"][0].splitlines() == ["true class: bright", "clean: bright (69 %)", "attacked: dark (77 %)"]
    attack_pairs(shown=2)
    assert len(drawn[1]["rows"]) == 2 and len(drawn[1]["images"]) == 6


def test_the_title_tells_attack_epsilon_in_both_units_and_how_many_changed(drawn):
    attack_pairs(shown=1)
    attack, epsilon, changed = drawn[0]["title"].splitlines()
    assert attack.startswith("PGD-4") and epsilon == "epsilon 0.25 on [-1, 1] = 31.88/255"
    assert changed == "2 of 5 test images change class"
    assert drawn[0]["column_names"] == ["clean", "attacked", "change x 4"]


def test_a_row_shows_the_image_the_attacked_one_and_the_change_scaled_by_epsilon(drawn):
    attack_pairs(shown=3)
    centres = [float(image[24, 24, 0]) for image in drawn[0]["images"]]
    # The first is made darker by epsilon, the last brighter.
    expected = [140, 108, 0, 150, 118, 0, 20, 52, 255]
    np.testing.assert_allclose(127.5 * (np.array(centres) + 1), expected, atol=1)
