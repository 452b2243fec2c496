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
    Metric(
        "validation_one_step_accuracy",
        "validation accuracy, the training's one step",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="one_step_valid",
        description="Accuracy on validation images under the training's attack, where that takes a single step.",
        healthy="It stays near validation accuracy. If that falls to nearly nothing and this does not, the network has "
        "learnt to mislead single steps: catastrophic over-fitting.",
    ),
)


def validation_accuracies(
    classifier: Classifier,
    attacker: Attack | None,
    examples: Examples,
    batch_size: int,
    seed: int,
    training_attacker: Attack | None = None,
) -> Callable[[], dict]:
    """Returns a function that measures the classifier as it is: `validation_accuracy`, `validation_clean_accuracy`.

    With another attack in the training that takes a single step, `validation_one_step_accuracy` too.

    Args:
        classifier: the classifier.
        attacker: the attack of the former; None for clean images in both.
        examples: the images.
        batch_size: images at once, at most.
        seed: of random starts.
        training_attacker: the attack that the classifier is trained with, if any.
    """
    batch_size = min(batch_size, len(examples))
    attacked = AttackedClassifier(classifier, attacker, batch_size, seed)
    clean = AttackedClassifier(classifier, None, batch_size)

    one_step = None
    if attacker is not None and training_attacker is not None and training_attacker.one_step:
        one_step = AttackedClassifier(classifier, training_attacker, batch_size, seed)

    def measure():
        accuracy = float(attacked(examples).mean())
        return {
            "validation_accuracy": accuracy,
            "validation_clean_accuracy": float(clean(examples).mean()) if attacker else accuracy,
            **({} if one_step is None else {"validation_one_step_accuracy": float(one_step(examples).mean())}),
        }

    return measure
