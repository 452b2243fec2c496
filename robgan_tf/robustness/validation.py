"""Accuracy on the validation images while a classifier is trained."""

from __future__ import annotations

from typing import Callable

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.run.metrics import SHARE, Metric, declare

declare(
    Metric(
        "validation_accuracy",
        "validation accuracy",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="accuracy_valid",
        description="Accuracy on validation images, under the attack of the validation, if it has one.",
    ),
    Metric(
        "validation_clean_accuracy",
        "clean validation accuracy",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="clean_valid",
        description="Accuracy on validation images without an attack.",
    ),
)


def validation_accuracies(
    classifier: Classifier, attacker: Attack | None, examples: Examples, batch_size: int, seed: int
) -> Callable[[], dict]:
    """Returns a function that measures the classifier as it is: `validation_accuracy`, `validation_clean_accuracy`.

    Args:
        classifier: the classifier.
        attacker: the attack of the former; None for clean images in both.
        examples: the images.
        batch_size: images at once, at most.
        seed: of random starts.
    """
    batch_size = min(batch_size, len(examples))
    attacked = AttackedClassifier(classifier, attacker, batch_size, seed)
    clean = AttackedClassifier(classifier, None, batch_size)

    def measure():
        accuracy = float(attacked(examples).mean())
        return {
            "validation_accuracy": accuracy,
            "validation_clean_accuracy": float(clean(examples).mean()) if attacker else accuracy,
        }

    return measure
