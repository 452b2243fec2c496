"""Clean and adversarial images side by side."""

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attacks import PGD
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.robustness.pairs import attack_pairs


def test_each_example_has_a_row_with_its_image_the_attacked_one_and_the_change():
    def logits(images):  # brighter or darker than grey
        mean = tf.reduce_mean(images, axis=[1, 2, 3])
        return 4 * tf.stack([-mean, mean], axis=-1)

    images = np.full([2, 48, 48, 1], 140, np.uint8)
    images[1] = 20
    attack = PGD(Attacker(threat_model=LInf(0.25), steps=4, relative_step_size=0.5))
    grid = np.asarray(attack_pairs(logits, attack, Examples(images, np.array([1, 0], np.int32)), ("dark", "bright"), 0))
    assert grid.shape[0] == 16 + 2 * 50 + 2
    cells = grid[16:, -(3 * 50 + 2) :]
    centres = cells[[27, 77]][:, [27, 77, 127], 0]
    # The first is made darker by epsilon (0.25 x 127.5 levels), the second brighter; the change is scaled by epsilon.
    np.testing.assert_allclose(centres, [[140, 108, 0], [20, 52, 255]], atol=1)
