"""Clean and adversarial images side by side, with what the classifier takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import PIL.Image

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attacked_classifier import Withstands
from robgan_tf.players.attacker.attacks import Attack
from robgan_tf.run.grids import image_grid


def attack_pairs(
    logits: Callable, attack: Attack, examples: Examples, class_names: Sequence[str], seed: int
) -> PIL.Image.Image:
    """Returns a grid with a row for each example: as it is, attacked, and the perturbation, with the answers.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K].
        attack: the attack; the perturbation is scaled so that its epsilon is black or white.
        examples: images and their right classes.
        class_names: names of all classes.
        seed: seed of the attack.
    """
    (clean,) = Withstands(logits, None, len(examples)).topple(examples, np.ones(len(examples), bool))
    adversarial, answers = np.array(clean.images), np.array(clean.logits)
    for batch in Withstands(logits, attack, len(examples), seed).topple(examples, np.ones(len(examples), bool)):
        adversarial[batch.rows], answers[batch.rows] = batch.adversarial, batch.logits
    magnified = np.clip((adversarial - clean.images) / attack.threat_model.epsilon, -1, 1)
    rows = np.stack([clean.images, adversarial, magnified], axis=1)
    names = [
        f"{class_names[label]}\nas it is: {_answer(one, class_names)}\nattacked: {_answer(other, class_names)}"
        for label, one, other in zip(examples.labels, clean.logits, answers)
    ]
    return image_grid(rows.reshape([-1, *rows.shape[2:]]), 3, names, column_names=["as it is", "attacked", "change"])


def _answer(logits: np.ndarray, class_names: Sequence[str]) -> str:
    """The class with the highest logit, and its probability."""
    shares = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return f"{class_names[best]} ({100 * shares[best] / shares.sum():.0f} %)"
