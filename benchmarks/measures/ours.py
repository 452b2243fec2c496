"""This project's training, as functions of no arguments that do a part of it and wait for its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from measures.peers import EPSILON, EVALUATION_STEPS, RELATIVE_STEP_SIZE
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.training.cotraining import CoTraining


def our_parts(stage: CoTraining, images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns this project's parts.

    Args:
        stage: co-training.
        images: float32 [discriminator_steps * B, H, W, C] in [-1, 1].
        labels: int32 [discriminator_steps * B].
    """
    batch, seed = stage.batch_size, tf.constant([0, 1])
    all_images, all_labels = tf.constant(images), tf.constant(labels)
    some_images, some_labels = all_images[:batch], all_labels[:batch]
    pgd = Attacker(LInf(EPSILON), EVALUATION_STEPS, relative_step_size=RELATIVE_STEP_SIZE)

    def logits(images):
        return stage.discriminator(images, training=False).classes

    def evaluate(images, labels):
        attacked = pgd.fool(logits, images, labels, seed)
        return tf.equal(tf.argmax(logits(attacked), axis=-1, output_type=tf.int32), labels)

    functions = {
        "attack": (stage.attack, some_images, some_labels, seed),
        "discriminator update": (stage.update_discriminator, some_images, some_labels, seed),
        "generator update": (stage.update_generator, seed),
        "iteration": (stage.train_step, (all_images, all_labels)),
        "evaluation": (evaluate, some_images, some_labels),
    }

    def call(function, *arguments):
        graph = tf.function(function, autograph=False)
        # To fetch a number waits for it, and for all that the graph assigns.
        return lambda: tf.nest.map_structure(lambda tensor: tensor.numpy(), graph(*arguments))

    return {part: call(*function) for part, function in functions.items()}
