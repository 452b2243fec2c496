"""Accuracy of a classifier on clean and on attacked images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.batches import evaluation_batches
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.losses import class_loss
from robgan_tf.players.attacker import Attacker
from robgan_tf.players.threat_model import epsilon_255


class Withstands:
    """Tells which images a classifier still gets right after an attack on each.

    The attack maximises the cross-entropy of the true class. The graph is traced once and serves any examples.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K], in inference mode.
        attacker: the attacker; None for clean images.
        batch_size: global batch size; it is rounded up to a multiple of the number of replicas.
        seed: seed of the attack's random starts.
    """

    def __init__(
        self, logits: Callable[[tf.Tensor], tf.Tensor], attacker: Attacker | None, batch_size: int, seed: int = 0
    ):
        self.logits = logits
        self.attacker = attacker
        self.seed = seed
        self.strategy = tf.distribute.get_strategy()
        replicas = self.strategy.num_replicas_in_sync
        self.batch_size = -(-batch_size // replicas) * replicas

    def __call__(self, examples: Examples, epsilon: float | None = None) -> np.ndarray:
        """Returns a bool for each of `examples`, [N].

        Args:
            examples: images and labels.
            epsilon: radius for the attack instead of the attacker's own.
        """
        if not len(examples):
            return np.zeros([0], bool)
        batches = self.strategy.experimental_distribute_dataset(evaluation_batches(examples, self.batch_size))
        if epsilon is None and self.attacker is not None:
            epsilon = self.attacker.threat_model.epsilon
        epsilon = tf.constant(epsilon or 0.0)
        hits = [
            self._hits(images, labels, epsilon, tf.constant(index)) for index, (images, labels, _) in enumerate(batches)
        ]
        # The last batch was filled up at its end.
        return np.concatenate([batch.numpy() for batch in hits])[: len(examples)].astype(bool)

    @tf.function
    def _hits(self, images, labels, epsilon, batch):
        hits = self.strategy.run(self._hits_of_replica, args=(images, labels, epsilon, batch))
        return self.strategy.gather(hits, axis=0)

    def _hits_of_replica(self, images, labels, epsilon, batch):
        if self.attacker is not None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(tf.constant([self.seed, 0xA77], tf.int32), batch)
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
            attacker = self.attacker.with_epsilon(epsilon)
            images = attacker(images, lambda images: class_loss(self.logits(images), labels), seed)
        hits = tf.equal(tf.argmax(self.logits(images), axis=-1, output_type=labels.dtype), labels)
        return tf.cast(hits, tf.int32)  # replicas can't gather bool


@gin.configurable
class RobustnessEvaluation:
    """Accuracy against epsilon, on the whole test split and on an equal part of the training split.

    An image counts as right at an epsilon if the classifier gets it right clean, under the attack with this epsilon,
    and under that with every smaller one of the list: each of them is within the larger ball, so the attacker may use
    it. So the curve never rises, and an image that is wrong already is not attacked again, which saves more than half
    the work.

    Args:
        attacker: the attack; its epsilon is replaced by each of `epsilons`, and a relative step size scales with it.
        epsilons: radii on the pixel scale [-1, 1], in rising order; 0 is the accuracy on clean images.
        batch_size: images attacked at once, over all replicas.
        test_examples: evaluate a class-balanced part of so many test images; None for all.
        seed: seed of random starts and of the choice of training images.

    Raises:
        ValueError: for epsilons that are not in rising order from 0.
    """

    def __init__(
        self,
        attacker: Attacker = gin.REQUIRED,
        epsilons: Sequence[float] = gin.REQUIRED,
        batch_size: int = 250,
        test_examples: int | None = None,
        seed: int = 0,
    ):
        epsilons = [float(epsilon) for epsilon in epsilons]
        if not epsilons or epsilons[0] != 0 or epsilons != sorted(set(epsilons)):
            raise ValueError(f"RobustnessEvaluation.epsilons must rise from 0, got {epsilons}.")
        for epsilon in epsilons[1:]:  # finds an epsilon that the steps can't reach now and not after the training
            attacker.with_epsilon(epsilon)
        self.epsilons = epsilons
        self.attacker = attacker
        self.batch_size = batch_size
        self.test_examples = test_examples
        self.seed = seed

    def __call__(self, logits: Callable, data: ImageData, progress: Callable[[str], None] = lambda line: None) -> dict:
        """Evaluates a classifier; returns what `robustness.json` holds.

        Args:
            logits: see `Withstands`.
            data: the data set.
            progress: is called with a line of text after each epsilon.
        """
        start = time.monotonic()
        test = data.test if self.test_examples is None else data.test.take(self.test_examples, self.seed)
        splits = {"test": test, "train": data.train.take(len(test), self.seed)}
        curves = {split: [] for split in splits}
        standing = dict(splits)
        batch_size = min(self.batch_size, len(test))
        attacked = Withstands(logits, self.attacker, batch_size, self.seed)
        clean = Withstands(logits, None, batch_size)
        for epsilon in self.epsilons:
            withstands = attacked if epsilon else clean
            for split, examples in splits.items():
                standing[split] = standing[split].select(withstands(standing[split], epsilon))
                accuracy = len(standing[split]) / len(examples)
                point = {"epsilon": epsilon, "epsilon_255": epsilon_255(epsilon), "accuracy": accuracy}
                if epsilon:
                    point["step_size"] = self.attacker.with_epsilon(epsilon).step_size
                curves[split].append(point)
                progress(
                    f"{split}: accuracy {accuracy:.2%} at epsilon {epsilon:g} ({epsilon_255(epsilon):.2f}/255), "
                    f"{len(examples)} images"
                )
        reports = {
            split: {"split": split, "examples": len(splits[split]), "clean": curve[0]["accuracy"], "curve": curve}
            for split, curve in curves.items()
        }
        attack = {**self.attacker.describe(), "objective": "cross-entropy", "counting": "cumulative", "seed": self.seed}
        # Each point of the curves has an epsilon and a step of its own.
        for key in ("epsilon", "epsilon_255", "step_size"):
            del attack[key]
        return {
            "dataset": data.name,
            "pixel_range": attack.pop("pixel_range"),
            "attack": attack,
            **reports["test"],
            "train": reports["train"],
            "wall_seconds": round(time.monotonic() - start, 1),
        }
