"""Free adversarial training: each update's backward pass moves the attack on, too (Shafahi et al., NeurIPS 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.training.batch_composition import Composition
from robgan_tf.training.objectives import Objective
from robgan_tf.training.optimization import assign_in_replica
from robgan_tf.training.randomness import shares_of_replicas
from robgan_tf.training.weight_perturbation import AdversarialWeightPerturbation
from robgan_tf.values import checked, whole


@gin.configurable("free")
@checked("free", replays=whole(1))
@dataclasses.dataclass(frozen=True)
class FreeTraining:
    """Updates the weights on each batch m times in a row, with an attack that costs nothing (Algorithm 1).

    One pass there and back gives the gradient in the weights, which are updated, and the gradient in the images, by
    which the perturbation d goes one step of the attacker and is projected. The next batch, of other images, starts
    where the last one ended: so d belongs to the stage's state, and checkpoints hold it. All replays of a batch are one
    training step, so that a run never stops between them.

    As images get `replays` updates each, an epoch reads 1/m of them: the updates of an epoch stay as many, and with
    them learning rates (the paper divides its epochs by m).

    The attack sees the network as the update does: batch norm on the statistics of the batch, smoothed labels. The
    perturbation is projected as everywhere else, onto the ball and the range of pixels; the authors' code leaves in it
    what the range of pixels cuts off.

    Attributes:
        replays: m; 8 for CIFAR-10 and 4 for ImageNet in the paper, with steps of epsilon.
    """

    replays: int = 4

    def check(
        self,
        attacker: Attack | None,
        objective: Objective,
        weight_perturbation: AdversarialWeightPerturbation | None,
    ):
        """Raises a ValueError where attacker, objective or weight perturbation do not go with it."""
        if not isinstance(attacker, PGD) or (attacker.steps, attacker.momentum, attacker.samples) != (1, None, 1):
            raise ValueError(
                f"FineTuning.free_training = @free() takes one step of PGD with each update, and the attacker is "
                f"{attacker}: set FineTuning.attacker = @finetuning/Attacker(), finetuning/Attacker.steps = 1 and "
                f"finetuning/Attacker.relative_step_size = 1.0."
            )
        if not objective.attacked_by_its_loss:
            raise ValueError(
                f"FineTuning.free_training = @free() attacks by the gradient of the loss that is minimised, and with "
                f"{type(objective).__name__} as it is set the attack maximises another one: set FineTuning.objective = "
                f"@adversarial() with adversarial.attack_loss = @class_loss, or @trades()."
            )
        if weight_perturbation is not None:
            raise ValueError(
                "FineTuning.free_training = @free() attacks by the gradient at the weights themselves, and "
                "FineTuning.weight_perturbation takes it at others: set one of them to None."
            )

    def first_perturbations(
        self, attacker: PGD, composition: Composition, image_shape: Sequence[int], seed: int
    ) -> list[tf.Variable]:
        """Returns the perturbation that training starts with: none, or with a random start a point of the ball.

        Args:
            attacker: the attacker.
            composition: how many images of each kind a batch has over all replicas.
            image_shape: (H, W, C).
            seed: of the random start.

        Returns:
            A variable for each kind that there is, real and generated: float32 [count, H, W, C], the same on all
            replicas. Each takes its rows of it, so that a run may go on with another number of them.
        """
        starts = (
            attacker.start(tf.zeros([count, *image_shape]), tf.constant([seed, 0xF4EE + kind], tf.int32))
            for kind, count in enumerate((composition.real, composition.generated))
            if count
        )
        return [tf.Variable(start, trainable=False, name="perturbation") for start in starts]

    def train(
        self, attacker: PGD, perturbations: Sequence[tf.Variable], images, labels, update: Callable, done
    ) -> dict:
        """Does the updates of one batch, and moves the perturbations on; returns the metrics of the last update.

        To be called in replica context at the top level of a training step.

        Args:
            attacker: the attacker.
            perturbations: what `first_perturbations` returned.
            images: this replica's images float32 [b, H, W, C] in [-1, 1], kind by kind.
            labels: their classes, int32 [b], or probabilities of the classes, float32 [b, K].
            update: `FineTuning.update`: of images, attacked images, labels and how many updates were done; it updates
                the weights, and returns the gradient in the attacked images, kind by kind, and metrics.
            done: how many updates were done before, an int64 scalar.
        """
        context = tf.distribute.get_replica_context()
        counts = [variable.shape[0] // context.num_replicas_in_sync for variable in perturbations]
        own = [
            shares_of_replicas(lambda _, perturbation=perturbation: [perturbation], count)[0]
            for perturbation, count in zip(perturbations, counts)
        ]
        adversarial = attacker.threat_model.project(images + tf.concat(own, axis=0), images)
        for replay in range(self.replays):
            in_images, metrics = update(images, adversarial, labels, done + replay)
            gradient = tf.concat(in_images, axis=0)
            # Under float16 the update leaves out what overflows; a perturbation that is not a number would stay so.
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
            adversarial = attacker.stepped(adversarial, gradient, images)
        own = tf.split(adversarial - images, counts)
        if context.num_replicas_in_sync > 1:
            own = [context.all_gather(part, axis=0) for part in own]
        assign_in_replica(perturbations, own)
        return metrics
