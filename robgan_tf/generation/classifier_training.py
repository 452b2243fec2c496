"""Standard training of a classifier, to measure with it: as an extractor of features, or what images are good for."""

from __future__ import annotations

import dataclasses
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import Examples
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.generation.image_sources import ImageSource
from robgan_tf.keras2 import keras
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.time_left import TimeLeft


@gin.configurable
@may_change()
@dataclasses.dataclass(frozen=True)
class ClassifierTraining:
    """How a classifier is trained: cross-entropy, Adam with a rate that falls to 0, no attack, no augmentation.

    Attributes:
        updates: number of updates.
        batch_size: images in each.
        learning_rate: the rate at the start.
        seed: of the weights and of the order of the images.

    Raises:
        ValueError: for a number out of its range.
    """

    updates: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self):
        for name in ("updates", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"ClassifierTraining.{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"ClassifierTraining.learning_rate must be > 0, got {self.learning_rate}.")

    def __call__(
        self,
        new_classifier: Callable[[], Classifier],
        images: ImageSource,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Classifier:
        """Returns a new classifier, trained on `images`.

        Args:
            new_classifier: makes it.
            images: what it is trained on.
            progress: is called with a line of text every ten seconds.
        """
        keras.utils.set_random_seed(self.seed)
        classifier = new_classifier()
        schedule = keras.optimizers.schedules.PolynomialDecay(self.learning_rate, self.updates, 0.0)
        optimizer = keras.optimizers.Adam(schedule, jit_compile=False)
        variables = classifier.class_variables
        optimizer.build(variables)

        @tf.function
        def update(pixels, labels):
            classifier.power_iteration()
            with tf.GradientTape() as tape:
                logits = classifier(to_pixel_range(pixels), training=True)
                loss = tf.reduce_mean(class_loss(logits, labels))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return loss

        time_left = TimeLeft(self.updates, "updates")
        for done, batch in enumerate(images.training_batches(self.updates, self.batch_size, self.seed), start=1):
            loss = update(*map(tf.convert_to_tensor, batch))
            if line := time_left.line(done):
                progress(f"classifier: {line}; loss {float(loss):.3f}")
        if not np.isfinite(float(loss)):
            raise ValueError(
                f"The classifier's loss became {float(loss)}: lower ClassifierTraining.learning_rate "
                f"({self.learning_rate})."
            )
        return classifier


def accuracy(classifier: Classifier, examples: Examples, batch_size: int) -> float:
    """Returns the share of `examples` that the classifier takes for their class."""
    return float(
        AttackedClassifier(lambda images: classifier(images, training=False), None, batch_size)(examples).mean()
    )
