"""The attacks that `crosscheck.py` compares: this project's and those of independent libraries, all in one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import L1, L2, PIXEL_RANGE, LInf, ThreatModel


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is attacked, and how.

    Attributes:
        logits: images float32 [B, H, W, C] in [-1, 1] -> logits float32 [B, K], compiled.
        num_classes: K.
        epsilon: radius of the ball on [-1, 1].
        steps: of PGD.
        relative_step_size: of PGD, as a share of epsilon.
        random_start: of PGD.
        batch_size: images at once.
        seed: of everything random.
        norm: of the ball: "linf", "l2" or "l1". PGD is compared in l-inf alone.
    """

    logits: Callable
    num_classes: int
    epsilon: float
    steps: int
    relative_step_size: float
    random_start: bool
    batch_size: int
    seed: int
    norm: str = "linf"

    @property
    def ball(self) -> ThreatModel:
        """The threat model."""
        return {"linf": LInf, "l2": L2, "l1": L1}[self.norm](self.epsilon)

    def by_batch(self, function: Callable, images: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """Calls function(images [B, ...], others [B, ...]) for each batch; returns all results, [N, ...]."""
        pieces = (slice(start, start + self.batch_size) for start in range(0, len(images), self.batch_size))
        return np.concatenate(
            [np.asarray(function(*(array[piece] for array in (images, *others)))) for piece in pieces]
        )


def pixels(examples: Examples) -> np.ndarray:
    """Clean images, float32 [N, H, W, C] in [-1, 1]."""
    return to_pixel_range(examples.images).numpy()


# Each of these makes an attack: a function from examples to adversarial images, float32 [N, H, W, C] in [-1, 1].


def our_pgd(setting: Setting) -> Callable[[Examples], np.ndarray]:
    """This project's PGD; its result is where the last step ends, as in the other libraries."""
    ball, step = LInf(setting.epsilon), setting.relative_step_size
    attacker = Attacker(ball, setting.steps, relative_step_size=step, random_start=setting.random_start)
    attacked = AttackedClassifier(setting.logits, attacker, setting.batch_size, setting.seed)
    return lambda examples: np.concatenate([batch.adversarial for batch in attacked.batches(examples)])


def foolbox_pgd(setting: Setting) -> Callable[[Examples], np.ndarray]:
    """The LinfPGD of foolbox."""
    import foolbox

    model = foolbox.TensorFlowModel(setting.logits, bounds=PIXEL_RANGE, device="")  # wherever TensorFlow likes
    step = setting.relative_step_size
    attack = foolbox.attacks.LinfPGD(rel_stepsize=step, steps=setting.steps, random_start=setting.random_start)

    def batch(images, labels):
        wrong = foolbox.criteria.Misclassification(tf.constant(labels, tf.int64))
        return attack.run(model, tf.constant(images), wrong, epsilon=setting.epsilon)

    return lambda examples: setting.by_batch(batch, pixels(examples), examples.labels)


def art_pgd(setting: Setting) -> Callable[[Examples], np.ndarray]:
    """The ProjectedGradientDescent of ART."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=lambda images, training=False: setting.logits(images),
        nb_classes=setting.num_classes,
        input_shape=setting.logits.input_signature[0].shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=PIXEL_RANGE,
    )
    attack = ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=setting.epsilon,
        eps_step=setting.relative_step_size * setting.epsilon,
        max_iter=setting.steps,
        num_random_init=int(setting.random_start),
        batch_size=setting.batch_size,
        verbose=False,
    )
    # By batch, as its own predictions would be made of all images at once.
    return lambda examples: setting.by_batch(attack.generate, pixels(examples), examples.labels)


def our_worst_case(setting: Setting, attacks) -> Callable[[Examples], np.ndarray]:
    """The worst case over this project's attacks. Images that stand are returned as they are."""
    runs = [AttackedClassifier(setting.logits, attack, setting.batch_size, setting.seed) for attack in attacks]

    def run(examples):
        adversarial, standing = pixels(examples), right(setting, pixels(examples), examples)
        for attacked in runs:
            for batch in attacked.attack_all(examples, standing, setting.epsilon):
                adversarial[batch.rows[batch.broken]] = batch.adversarial[batch.broken]
        return adversarial

    return run


def autoattack(setting: Setting, only: str | None = None) -> Callable[[Examples], np.ndarray]:
    """AutoAttack standard, in PyTorch: images [N, C, H, W] in [0, 1], where epsilon is half of ours.

    Args:
        setting: what is attacked, and how.
        only: one of its attacks alone, e.g. "apgd-ce", with one restart; None for the standard version of all.
    """
    import torch
    from pyautoattack import AutoAttack

    def forward(images):
        return setting.logits(tf.transpose(2 * images - 1, [0, 2, 3, 1]))

    @tf.function(reduce_retracing=True)
    def backward(images, output_gradient):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            outputs = forward(images)
        return tape.gradient(outputs, images, output_gradients=output_gradient)

    class Classifier(torch.autograd.Function):
        @staticmethod
        def forward(context, images):
            context.save_for_backward(images)
            return torch.from_numpy(forward(images.detach().numpy()).numpy())

        @staticmethod
        def backward(context, output_gradient):
            (images,) = context.saved_tensors
            return torch.from_numpy(backward(images.detach().numpy(), output_gradient.contiguous().numpy()).numpy())

    version = {"version": "standard"} if only is None else {"version": "custom", "attacks": [only]}
    attack = AutoAttack(
        Classifier.apply, eps=setting.epsilon / 2, norm=setting.norm.capitalize(), seed=setting.seed, **version
    )
    if only is not None:
        attack.apgd.n_restarts = 1
    # It takes nine target classes, all the wrong ones of CIFAR-10. With fewer classes there are fewer.
    targets = min(9, setting.num_classes - 1)
    attack.apgd_targeted.n_target_classes = min(attack.apgd_targeted.n_target_classes, targets)
    attack.fab.n_target_classes = targets

    def run(examples):
        # Its views of gradients want the usual order in memory.
        images = torch.from_numpy(np.ascontiguousarray((pixels(examples).transpose(0, 3, 1, 2) + 1) / 2))
        labels = torch.from_numpy(examples.labels.astype(np.int64))
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=setting.batch_size)
        return 2 * adversarial.detach().numpy().transpose(0, 2, 3, 1) - 1

    return run


def right(setting: Setting, images: np.ndarray, examples: Examples) -> np.ndarray:
    """Which of the images [N, H, W, C], versions of `examples`, are classified right, bool [N]."""
    return setting.by_batch(setting.logits, images).argmax(axis=-1) == examples.labels
