"""How long the attacks of a training step take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import tensorflow as tf

from robgan_tf.training.stage import Stage

# As many attacks as fit in this time are timed, and one at least.
_SECONDS = 0.1


class AttackTimer:
    """Times a stage's attack, compiled by itself, on random images: within a step it can't be told from the rest.

    Args:
        stage: the stage, with an attacker.
        image_shape: (height, width, channels) of its images.
        num_classes: number of classes.
    """

    def __init__(self, stage: Stage, image_shape: Sequence[int], num_classes: int):
        self.stage = stage
        generator = tf.random.Generator.from_seed(0)
        self._images = generator.uniform([stage.attacked_at_once, *image_shape], -1, 1)
        self._labels = generator.uniform([stage.attacked_at_once], 0, num_classes, tf.int32)
        self._attack = tf.function(self._attack, autograph=False)
        self._ready = False

    def measure(self, step: int) -> dict:
        """Returns `attack_seconds`: of one attack, times the micro-batches of a step; on the weights as they are."""
        del step
        if not self._ready:  # trace and compile
            self._attack().numpy()
            self._ready = True
        began, times = time.perf_counter(), 0
        while not times or time.perf_counter() - began < _SECONDS:
            self._attack().numpy()  # waits for the devices
            times += 1
        return {"attack_seconds": self.stage.micro_batches * (time.perf_counter() - began) / times}

    def _attack(self):
        strategy = tf.distribute.get_strategy()
        adversarial = strategy.run(self.stage.attack, args=(self._images, self._labels, tf.constant([0, 0])))
        return tf.stack([tf.reduce_sum(images) for images in strategy.experimental_local_results(adversarial)])
