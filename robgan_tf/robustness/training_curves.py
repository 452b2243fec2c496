"""Accuracy and local Lipschitz value of the classifier while it trains."""

from __future__ import annotations

from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.bindings import may_change
from robgan_tf.data.datasets import ImageData
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.robustness.local_lipschitz import LocalLipschitz
from robgan_tf.run.metrics import SHARE, Metric, declare
from robgan_tf.values import checked, whole

for _split in ("train", "test"):
    declare(
        *(
            Metric(
                f"classifier_{_split}_{kind}_accuracy", f"{_split}, {kind}", "Accuracy (Fig. 2)", "classifier", SHARE
            )
            for kind in ("clean", "attacked")
        ),
        Metric(f"classifier_{_split}_lipschitz", _split, "Local Lipschitz value (Fig. 2)", "classifier"),
    )


@gin.configurable
@may_change()
@checked(every=whole(1), examples=whole(1), batch_size=whole(1), seed=whole(0))
class TrainingCurves:
    """Accuracy and LLV on training and test images while a classifier trains: Fig. 2 of the paper.

    They are to be looked at: nothing is chosen by them.

    Args:
        every: steps of fine-tuning between two measurements.
        examples: number of images of either split.
        batch_size: images at once.
        seed: of the choice of images and of the attack.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(self, every: int = 500, examples: int = 500, batch_size: int = 250, seed: int = 0):
        self.every = every
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed

    def __call__(
        self, logits: Callable[[tf.Tensor], tf.Tensor], data: ImageData, attacker: Attack | None
    ) -> Callable[[], dict]:
        """Returns a function that measures the classifier as it is, as metrics.

        Args:
            logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K], in inference mode.
            data: the data set.
            attacker: the attack; None for clean images alone.
        """
        splits = {
            name: split.take(min(self.examples, len(split)), self.seed)
            for name, split in (("train", data.train), ("test", data.test))
        }
        batch_size = min(self.batch_size, *map(len, splits.values()))
        kinds = {"clean_accuracy": AttackedClassifier(logits, None, batch_size)}
        if attacker is not None:
            kinds["attacked_accuracy"] = AttackedClassifier(logits, attacker, batch_size, self.seed)
        lipschitz = LocalLipschitz(logits, data.test.image_shape, batch_size)

        def measure():
            found = {}
            for split, examples in splits.items():
                for kind, attacked in kinds.items():
                    found[f"classifier_{split}_{kind}"] = float(attacked(examples).mean())
                found[f"classifier_{split}_lipschitz"] = float(np.mean(lipschitz(examples)))
            return found

        return measure
