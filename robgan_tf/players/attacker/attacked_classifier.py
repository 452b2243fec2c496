"""A classifier under an attack, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, ThreatModel

if TYPE_CHECKING:
    from robgan_tf.players.attacker.attack import Attack


class Attacked(NamedTuple):
    """A batch of examples after an attack, in arrays.

    Attributes:
        rows: which of the examples they are, int [B].
        images: clean, float32 [B, H, W, C] in [-1, 1].
        adversarial: attacked, of the same shape.
        logits: the classifier's answers on the attacked ones, float32 [B, K].
        predictions: the classes it gives, int [B]; the best of the wrong ones where that ties with the right one.
        right: whether the right class has the largest logit alone, bool [B]; see `judge`.
        valid: whether the attacked image is finite, in range and in the ball, bool [B].
    """

    rows: np.ndarray
    images: np.ndarray
    adversarial: np.ndarray
    logits: np.ndarray
    predictions: np.ndarray
    right: np.ndarray
    valid: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """Whether the attack succeeded, bool [B]."""
        return ~self.right & self.valid


class AttackedClassifier:
    """Tells which images a classifier still gets right after an attack on each.

    The graph is traced once, for any number of images and any epsilon. What is in memory at a time is one batch.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K], in inference mode.
        attack: the attack; None for clean images.
        batch_size: most images at once, over all replicas.
        seed: seed of the attack's random numbers.
        stream: which stream of random numbers of this seed it draws from: attacks on the same images get one each.

    Attributes:
        made: how many images the attack has made so far.
        invalid: how many of them were outside of ball or range or not finite; they count as failed attacks.
    """

    def __init__(
        self,
        logits: Callable[[tf.Tensor], tf.Tensor],
        attack: Attack | None,
        batch_size: int,
        seed: int = 0,
        stream: int = 0,
    ):
        self.logits = logits
        self.attack = attack
        self.seed = seed
        self.stream = stream
        self.strategy = tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.batch_size = -(-batch_size // self.replicas) * self.replicas
        self.made = self.invalid = 0
        self._graph = None

    def __call__(self, examples: Examples, epsilon: float | None = None) -> np.ndarray:
        """Returns which of `examples` are right after all runs of the attack, bool [N].

        Args:
            examples: images and labels, any number.
            epsilon: radius for the attack instead of its own.
        """
        standing = np.ones(len(examples), bool)
        for _ in self.attack_all(examples, standing, epsilon):
            pass
        return standing

    def attack_all(self, examples: Examples, standing: np.ndarray, epsilon: float | None = None) -> Iterator[Attacked]:
        """Does all runs of the attack, each on the examples that still stand, and yields their batches.

        Args:
            examples: images and labels.
            standing: bool [N], which of them to attack; those that fall are set to False.
            epsilon: radius for the attack instead of its own.
        """
        for run in range(self.attack.runs if self.attack else 1):
            alive = np.flatnonzero(standing)
            for batch in self.batches(examples.select(alive), epsilon, run):
                batch = batch._replace(rows=alive[batch.rows])
                standing[batch.rows[batch.broken]] = False
                yield batch

    def batches(self, examples: Examples, epsilon: float | None = None, run: int = 0) -> Iterator[Attacked]:
        """Attacks `examples` once, and yields batches that together hold each of them once, in order.

        Args:
            examples: images and labels, any number.
            epsilon: radius for the attack instead of its own.
            run: which of the attack's runs it is.
        """
        if epsilon is None:
            epsilon = self.attack.threat_model.epsilon if self.attack else 0.0
        if self._graph is None:
            # Any number of images: those that still stand become fewer and fewer.
            specs = [tf.TensorSpec([None, *examples.image_shape], tf.uint8), tf.TensorSpec([None], tf.int32)]
            specs += [tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)]
            self._graph = tf.function(self._attack, autograph=False).get_concrete_function(*specs)
        count = -(-len(examples) // self.batch_size)
        for index, rows in enumerate(np.array_split(np.arange(len(examples)), count) if count else ()):
            # Filled up, so that the replicas get equally many.
            filled = np.resize(rows, [-(-len(rows) // self.replicas) * self.replicas])
            seed = tf.random.experimental.stateless_fold_in(
                tf.constant([self.seed, 0xA77 + self.stream], tf.int32), index
            )
            inputs = examples.images[filled], examples.labels[filled], np.float32(epsilon), seed, run
            outputs = self._graph(*map(tf.convert_to_tensor, inputs))
            images, adversarial, logits = (output.numpy()[: len(rows)] for output in outputs)
            predictions, right = judge(logits, examples.labels[rows])
            valid = np.ones(len(rows), bool)
            if self.attack is not None:
                valid = is_within(self.attack.threat_model, epsilon, images, adversarial)
                self.made += len(rows)
                self.invalid += int(np.sum(~valid))
            yield Attacked(rows, images, adversarial, logits, predictions, right, valid)

    def _attack(self, pixels, labels, epsilon, seed, run):
        images = preprocessing.to_pixel_range(pixels)

        def replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = tf.shape(images)[0] // self.replicas
            mine = slice(number * share, (number + 1) * share)
            return self.attack_share(images[mine], labels[mine], epsilon, seed, run)

        adversarial, logits = self.strategy.run(replica)
        return images, self.strategy.gather(adversarial, axis=0), self.strategy.gather(logits, axis=0)

    def attack_share(self, images, labels, epsilon, seed, run):
        """Attacks a replica's share of a global batch; returns its adversarial images and their logits, float32."""
        if self.attack is not None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
            seed = tf.random.experimental.stateless_fold_in(seed, run)
            images = self.attack.with_epsilon(epsilon).fool(self._logits32, images, labels, seed, run)
        return images, self._logits32(images)

    def _logits32(self, images):
        return tf.cast(self.logits(images), tf.float32)


def judge(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes that logits [N, K] stand for, int [N], and whether they are right, bool [N].

    Ties count as wrong, and so do NaN and infinity: the class is then the best of the wrong ones. Minus infinity is
    what some classifiers give to a class that they do not use.
    """
    every = np.arange(len(labels))
    others = logits.copy()
    others[every, labels] = -np.inf
    mine = logits[every, labels]
    right = (mine > others.max(axis=-1)) & np.isfinite(mine) & ~np.isnan(logits).any(axis=-1)
    return np.where(right, labels, others.argmax(axis=-1)), right


def is_within(threat_model: ThreatModel, epsilon: float, images: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """Checks adversarial images as arrays; returns which are finite, in range and in the ball, bool [B].

    Args:
        threat_model: says which norm.
        epsilon: radius of the ball on [-1, 1].
        images: the clean ones, float32 [B, H, W, C] in [-1, 1].
        adversarial: the attacked ones.
    """
    size = threat_model.size(adversarial.astype(np.float64) - images).numpy()
    # float32: epsilon and every pixel, up to 1, are rounded twice by 2**-24.
    allowed = epsilon * (1 + 1e-6) + 2**-23 * threat_model.norm_of_ones(adversarial[0].size)
    low, high = PIXEL_RANGE
    in_range = ((adversarial >= low) & (adversarial <= high)).all(axis=(1, 2, 3))
    return in_range & (size <= allowed)  # NaN compares false
