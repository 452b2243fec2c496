"""Standard training of a classifier, to measure with it: as an extractor of features, or what images are good for."""

from __future__ import annotations

import dataclasses
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.generation.image_sources import ImageSource
from robgan_tf.keras2 import keras
from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.time_left import TimeLeft
from robgan_tf.values import checked, number, whole


@gin.configurable
@may_change()
@checked(updates=whole(1), batch_size=whole(1), learning_rate=number(above=0), seed=whole(0))
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

        @tf.function(autograph=False)
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


def classification_accuracy(
    training: ClassifierTraining,
    images: ImageSource,
    train: ImageSource,
    data: ImageData,
    new_classifier: Callable[[], Classifier],
    batch_size: int,
    progress: Callable[[str], None],
) -> dict:
    """Accuracy on test images of classifiers trained on generated and on real ones (Ravuri & Vinyals, 2019)."""
    found = {}
    for name, source in (("generated", images), ("real", train)):
        classifier = training(new_classifier, source, progress)
        found[name] = accuracy(classifier, data.test, min(batch_size, len(data.test)))
        progress(f"accuracy of a classifier trained on {name} images alone: {found[name]:.2%}")
    return {**found, "test_images": len(data.test), **dataclasses.asdict(training)}
