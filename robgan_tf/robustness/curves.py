"""Collects what attacks did to the images of a split, in numbers and in a few pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import Attacked
from robgan_tf.players.attacker.threat_model import epsilon_255
from robgan_tf.robustness.intervals import wilson

# More classes than this make no readable table.
_MOST_CLASSES = 100


class SplitResult:
    """Accuracy of one split against epsilon, and by class. Some bytes for each image, and none of its pixels.

    Args:
        split: its name.
        labels: right classes, int [N].
        epsilons: radii, in rising order from 0.
        attacks: what was run at each radius above 0, in order.
    """

    def __init__(self, split: str, labels: np.ndarray, epsilons: Sequence[float], attacks: Sequence[Attack]):
        self.split = split
        self.labels = labels
        self.epsilons = epsilons
        self.attacks = attacks
        self.clean = np.zeros(len(labels), np.int32)  # the classifier's answers
        self.answer = np.array(labels)  # the wrong answer that an image fell with, the right one if it stands
        self.fell_at = np.full(len(labels), np.inf)  # smallest epsilon; 0 where it is wrong clean
        self.by_gradient = np.zeros(len(labels), bool)  # whether it fell to an attack along gradients
        self.findings = []
        self.counts = np.zeros([len(epsilons), len(attacks), 2], np.int64)  # attacked, broken

    def add_clean(self, rows: np.ndarray, batch: Attacked):
        """Records the answers on clean images; `rows` are their places in the split."""
        self.clean[rows] = batch.predictions
        self.add_broken(rows, batch, 0.0)

    def add_broken(self, rows: np.ndarray, batch: Attacked, epsilon: float, by_gradient: bool = True):
        """Records which images of a batch fell; one that fell at a smaller epsilon already is as it was."""
        new = batch.broken & (self.fell_at[rows] > epsilon)
        self.fell_at[rows[new]] = epsilon
        self.answer[rows[new]] = batch.predictions[new]
        self.by_gradient[rows[new]] = by_gradient

    def fallen(self, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns which images stand at an epsilon, and which fell to an attack that asks for no gradient, bool [N]."""
        standing = self.fell_at > epsilon
        return standing, ~standing & ~self.by_gradient

    def add_finding(self, attack: Attack, attacked: int, broken: int):
        """Counts images that the checks' attack broke at the epsilon of the headline, on top of the others."""
        if broken:
            names = {"name": attack.name, "label": f"check: {attack.label}"}
            self.findings.append({**names, "attacked": attacked, "broken": broken})

    def add_count(self, radius: int, attack: int, before: int, after: int):
        """Counts the images that stood before and after an attack at the `radius`-th epsilon."""
        self.counts[radius, attack] += before, before - after

    def block(self, reference_epsilon: float, class_names: Sequence[str]) -> dict:
        """Returns the part of the report on this split."""
        from sklearn.metrics import confusion_matrix  # here: slow to import, and a training begins without it

        curve = [self._point(radius, epsilon) for radius, epsilon in enumerate(self.epsilons)]
        for point in curve:
            if point["epsilon"] == reference_epsilon:
                stood = point["attacks"][-1]["accuracy"] if point["attacks"] else point["accuracy"]
                for finding in self.findings:
                    stood -= finding["broken"] / len(self.labels)
                    point["attacks"].append({**finding, "accuracy": stood})
        classes = np.arange(len(class_names))
        attacked = np.where(self.fell_at <= reference_epsilon, self.answer, self.labels)
        matrices = {
            "clean": confusion_matrix(self.labels, self.clean, labels=classes),
            "worst_case": confusion_matrix(self.labels, attacked, labels=classes),
        }
        sizes = np.bincount(self.labels, minlength=len(classes))
        shares = {name: np.diag(matrix) / np.maximum(sizes, 1) for name, matrix in matrices.items()}
        return {
            "split": self.split,
            "examples": len(self.labels),
            "clean": curve[0]["accuracy"],
            "clean_interval": curve[0]["interval"],
            "curve": curve,
            "per_class": [
                {
                    "name": name,
                    "examples": int(sizes[index]),
                    **{kind: float(share[index]) if sizes[index] else None for kind, share in shares.items()},
                }
                for index, name in enumerate(class_names)
            ],
            "confusion": {name: matrix.tolist() for name, matrix in matrices.items()}
            if len(classes) <= _MOST_CLASSES
            else None,
        }

    def _point(self, radius: int, epsilon: float) -> dict:
        count = len(self.labels)

        def attack(number, attack):
            attacked, broken = map(int, self.counts[radius, number])
            names = {"name": attack.name, "label": attack.label}
            return {**names, "attacked": attacked, "broken": broken, "accuracy": (attacked - broken) / count}

        standing = int(np.sum(self.fell_at > epsilon))
        return {
            "epsilon": epsilon,
            "epsilon_255": epsilon_255(epsilon),
            "accuracy": standing / count,
            "interval": wilson(standing, count),
            "attacks": [attack(*item) for item in enumerate(self.attacks)] if epsilon else [],
        }


class WorstExamples:
    """Keeps the adversarial images that fell at the smallest epsilon, and of these the surest wrong answers.

    Args:
        most: how many.
    """

    def __init__(self, most: int = 8):
        self.most = most
        self._kept = []

    def add(self, batch: Attacked, labels: np.ndarray, epsilon: float, attack: str):
        """Looks for some in a batch; `labels` are its right classes."""
        margins = batch.logits.max(axis=-1) - batch.logits[np.arange(len(labels)), labels]
        for index in np.flatnonzero(batch.broken & np.isfinite(margins)):
            images = batch.images[index], batch.adversarial[index]
            answer = int(labels[index]), int(batch.predictions[index])
            self._kept.append((epsilon, -float(margins[index]), images, answer, attack))
        self._kept = sorted(self._kept, key=lambda one: one[:2])[: self.most]

    def arrays(self, image_shape: Sequence[int]) -> dict:
        """Returns what the page shows.

        `clean` and `adversarial` are float32 [n, H, W, C] in [-1, 1]; `labels` and `predictions` int [n]; `epsilon` is
        float [n]; `attack` has n names.
        """
        epsilons, _, images, answers, attacks = zip(*self._kept) if self._kept else ([],) * 5
        pairs = np.array(images, np.float32).reshape(len(images), 2, *image_shape)
        classes = np.array(answers, np.int32).reshape(len(images), 2)
        return {
            "clean": pairs[:, 0],
            "adversarial": pairs[:, 1],
            "labels": classes[:, 0],
            "predictions": classes[:, 1],
            "epsilon": np.array(epsilons, np.float64),
            "attack": list(attacks),
        }
