"""Clean and adversarial images side by side, with the predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import PIL.Image

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.threat_model import epsilon_255
from robgan_tf.run.grids import image_grid


def attack_pairs(
    logits: Callable,
    attack: Attack,
    examples: Examples,
    class_names: Sequence[str],
    seed: int,
    shown: int | None = None,
) -> PIL.Image.Image:
    """Returns a labelled grid with a row for each example: clean, attacked, and the change.

    Examples whose class the attack changes come first, then those that withstand it, then those that are misclassified
    already when clean; each in the order in which they are given. Above the grid stand the attack, its epsilon and how
    many examples changed.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K].
        attack: the attack; the change is magnified so that epsilon is black or white.
        examples: images and their true classes.
        class_names: names of all classes.
        seed: seed of the attack.
        shown: how many of the examples to show; all if None.
    """
    every, count = np.ones(len(examples), bool), len(examples)
    (clean,) = AttackedClassifier(logits, None, count).attack_all(examples, every.copy())
    adversarial, answers = np.array(clean.images), np.array(clean.logits)
    for batch in AttackedClassifier(logits, attack, count, seed).attack_all(examples, every.copy()):
        adversarial[batch.rows], answers[batch.rows] = batch.adversarial, batch.logits
    broken = clean.right & (answers.argmax(axis=-1) != examples.labels)
    order = np.argsort(np.where(broken, 0, np.where(clean.right, 1, 2)), kind="stable")[:shown]
    epsilon = attack.threat_model.epsilon
    change = np.clip((adversarial - clean.images) / epsilon, -1, 1)
    rows = np.stack([clean.images, adversarial, change], axis=1)[order]
    names = [
        f"true class: {class_names[examples.labels[one]]}\n"
        f"clean: {_answer(clean.logits[one], class_names)}\n"
        f"attacked: {_answer(answers[one], class_names)}"
        for one in order
    ]
    title = (
        f"{attack.describe()['label']}\n"
        f"epsilon {epsilon:.4g} on [-1, 1] = {epsilon_255(epsilon):.4g}/255\n"
        f"{broken.sum()} of {len(examples)} test images change class"
    )
    columns = ["clean", "attacked", f"change x {1 / epsilon:.3g}"]
    return image_grid(rows.reshape([-1, *rows.shape[2:]]), 3, names, column_names=columns, title=title)


def _answer(logits: np.ndarray, class_names: Sequence[str]) -> str:
    """The class with the highest logit, and its probability."""
    shares = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return f"{class_names[best]} ({100 * shares[best] / shares.sum():.0f} %)"
