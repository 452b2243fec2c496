"""What all attacks share: one interface, for training and for evaluation.

Training gives an attack what it maximises, a function of images: `attack(images, loss, seed)`, or in two steps `start`
and `ascend`. The evaluation gives it a classifier, on which the attack maximises its own loss:
`attack.fool(logits, images, labels, seed, run)`. A new attack is a class of one file, with a `search` for both.

Attacks live within a `tf.function`, take the network in inference mode, assign nothing, and draw the same numbers for
the same seed. In an evaluation, one of several runs (restarts, target classes) does one of them at a call, so that the
caller goes on with the images that still stand.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import inspect
from typing import Callable

import tensorflow as tf

from robgan_tf.data.datasets import TrainingSplit
from robgan_tf.losses.terms import class_loss
from robgan_tf.players.attacker.judge import Judge, Score, by_loss_alone
from robgan_tf.players.attacker.losses import check_loss_classes, likely_wrong_class, margin_loss
from robgan_tf.players.attacker.threat_model import ThreatModel
from robgan_tf.values import check, maker, whole


class Attack(abc.ABC):
    """One attack with all its settings.

    Args:
        threat_model: norm, epsilon and projection, e.g. `@LInf()`.
        loss: what an evaluation's attack maximises, the loss of each image: (logits [B, K], labels [B]) -> [B]; with
            `targets` it takes the target classes too. See `losses`. (Training gives another one at each call.)
        targets: 0 for an untargeted attack; else each image is driven to so many wrong classes, the most likely one of
            the clean image first, a run for each.
        restarts: how many times it is tried, with other random numbers.

    Attributes:
        name: what tables call it.
        label: the same for people, with the main settings.
        needs_gradient: whether it asks the attacked classifier for gradients; else it is a black-box attack.
        random_start: whether it starts at a random point of the ball instead of at the image.
        one_step: whether it takes a single step, which a network can learn to mislead (catastrophic over-fitting).
        splits: whether an evaluation leaves out images that are broken while the others go on.
        compiles: whether XLA can compile it, to the same images.

    Raises:
        ValueError: for numbers out of their range, or a loss that does not fit `targets`.
    """

    name: str
    label: str
    needs_gradient = True
    random_start = False
    one_step = False
    splits = True
    compiles = True

    def __init__(self, threat_model: ThreatModel, loss: Callable = class_loss, targets: int = 0, restarts: int = 1):
        kind = type(self).__name__
        if not isinstance(threat_model, ThreatModel):
            raise ValueError(f"{kind}.threat_model must be a threat model such as @LInf(), got {threat_model!r}.")
        check(f"{kind}.restarts", restarts, whole(1))
        check(f"{kind}.targets", targets, whole(0))
        check(f"{kind}.loss", loss, maker("@class_loss"))
        takes_targets = "targets" in inspect.signature(loss).parameters
        if takes_targets != (targets > 0):
            takes = "takes target classes" if takes_targets else "takes no target classes"
            raise ValueError(
                f"{kind}.loss = @{loss.__name__} {takes}, and {kind}.targets is {targets}: give a targeted loss with "
                f"targets of 1 or more, or another one with targets = 0."
            )
        self.threat_model = threat_model
        self.loss = loss
        self.targets = targets
        self.restarts = restarts

    @property
    def runs(self) -> int:
        """How many calls of `fool` make the whole attack, each on the images that still stand."""
        return self.restarts * max(self.targets, 1)

    # ---- training: the loss is given

    def __call__(self, images, loss: Callable[[tf.Tensor], tf.Tensor], seed=None) -> tf.Tensor:
        """Returns adversarial images [B, H, W, C] within the threat model around `images`.

        Args:
            images: float32 [B, H, W, C] in [-1, 1].
            loss: see `ascend`.
            seed: int32 [2]; needed where anything is random.

        Raises:
            ValueError: where a seed is needed and missing.
        """
        images = tf.convert_to_tensor(images)
        return self.ascend(self.start(images, seed), images, loss, seed)

    def start(self, images: tf.Tensor, seed=None) -> tf.Tensor:
        """Returns where the attack on `images` starts: a random point of the ball around each, or the images.

        Raises:
            ValueError: where a random start has no seed.
        """
        if not self.random_start:
            return images
        if seed is None:
            raise ValueError("An attack with a random start needs a seed (int32 [2]).")
        perturbation = self.threat_model.random_perturbation(tf.shape(images), seed)
        return self.threat_model.project(images + perturbation, images)

    def ascend(self, start: tf.Tensor, images: tf.Tensor, loss: Callable, seed=None) -> tf.Tensor:
        """Returns the adversarial images that the attack reaches from `start`.

        Computes gradients with respect to the images alone, and assigns nothing.

        Args:
            start: [B, H, W, C] within the threat model around `images`.
            images: the clean images, float32 [B, H, W, C] in [-1, 1].
            loss: maps images to the loss of each, [B], which the attack maximises. It must evaluate its network in
                inference mode.
            seed: int32 [2], for attacks that are random beyond their start.
        """
        return tf.stop_gradient(self.search(start, images, Judge(by_loss_alone(loss)), seed))

    def check_training(self):
        """Raises ValueError where training can't use the attack as it is set."""
        if self.runs > 1 or self.targets:
            raise ValueError(
                f"Training attacks each image once, with the stage's own loss: set {type(self).__name__}.restarts = 1 "
                f"and targets = 0, got {self.restarts} and {self.targets}."
            )

    def check_xla(self, setting: str, value: bool):
        """Raises ValueError where the `value` of `setting` has XLA compile an attack that it can't compile."""
        if value and not self.compiles:
            raise ValueError(
                f"{setting} = True: XLA can't compile {type(self).__name__}; set it to False, or take another attack, "
                f"such as @Attacker()."
            )

    # ---- evaluation: the classifier is given

    def fool(self, logits: Callable, images: tf.Tensor, labels: tf.Tensor, seed, run=0) -> tf.Tensor:
        """Returns adversarial images of a classifier, float32 [B, H, W, C], within the threat model around `images`.

        Args:
            logits: the classifier: images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K].
            images: clean images, float32 [B, H, W, C] in [-1, 1].
            labels: their right classes, int32 [B].
            seed: int32 [2]; another for each run.
            run: which of the `runs` it is, from 0, as a number or an int32 scalar.
        """
        chosen = [likely_wrong_class(logits(images), labels, run % self.targets)] if self.targets else []

        def score(images, labels, *chosen):
            outputs = logits(images)
            return Score(self.loss(outputs, labels, *chosen), is_wrong(outputs, labels))

        start = self.start_of_run(images, seed, run)
        return tf.stop_gradient(self.search(start, images, Judge(score, [labels, *chosen], self.splits), seed))

    def start_of_run(self, images: tf.Tensor, seed, run) -> tf.Tensor:
        """Returns where a run of an evaluation starts; see `start` and `fool`."""
        return self.start(images, seed)

    def prepared(self, logits: Callable, train: TrainingSplit, seed: int) -> Attack:
        """Returns the attack, made ready for a classifier where it has to learn something of it first.

        Args:
            logits: the classifier.
            train: images to learn from; never those that will be attacked.
            seed: of what is random.
        """
        return self

    def check_classes(self, num_classes: int):
        """Raises ValueError where a classifier of `num_classes` can't be attacked so."""
        kind, problems = type(self).__name__, []
        try:
            check_loss_classes(self.loss, num_classes)
        except ValueError as error:
            problems.append(str(error))
        if self.targets and num_classes < 2:
            problems = [
                f"{kind}.targets = {self.targets}: with 1 class none is wrong. Take @class_loss and targets = 0."
            ]
        elif self.targets > num_classes - 1:
            problems.append(
                f"{kind}.targets = {self.targets}: of {num_classes} classes {num_classes - 1} are wrong for an image. "
                f"Set {kind}.targets (in gin/evaluation/standard.gin: wrong_classes) to {num_classes - 1} or less."
            )
        if problems:
            raise ValueError(" ".join(problems))

    # ---- both

    @abc.abstractmethod
    def search(self, start: tf.Tensor, images: tf.Tensor, judge: Judge, seed) -> tf.Tensor:
        """Returns the worst images that are found from `start`, float32 [B, H, W, C] within the threat model.

        Args:
            start: what `start` has given.
            images: the clean images, float32 [B, H, W, C] in [-1, 1].
            judge: gives the score of images [B, H, W, C]. In training none is ever broken.
            seed: int32 [2], that of `start`; None in training where none is given.
        """

    def on_whole_batches(self) -> Attack:
        """Returns the same attack that leaves no broken images out: slower, in a graph whose shapes are all static."""
        other = copy.copy(self)
        other.splits = False
        return other

    def with_epsilon(self, epsilon) -> Attack:
        """Returns the same attack on a ball of another radius, a number or a scalar tensor."""
        other = copy.copy(self)
        other.threat_model = dataclasses.replace(self.threat_model, epsilon=epsilon)
        return other

    def settings(self) -> dict:
        """Returns all settings but the threat model, as JSON."""
        return {"loss": self.loss.__name__, "targets": self.targets, "restarts": self.restarts}

    def describe(self) -> dict:
        """Returns name, label, norm and all settings but epsilon, for reports: epsilon is the evaluation's."""
        return {"name": self.name, "label": self.label, "norm": self.threat_model.norm, **self.settings()}

    def __str__(self):
        return f"{self.name}, in the {self.threat_model}"

    def runs_label(self) -> str:
        """Returns target classes and restarts for the label; nothing where there is one run."""
        targets = f", {self.targets} targets" if self.targets else ""
        return targets + (f", {self.restarts} restarts" if self.restarts > 1 else "")


def is_wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns whether another class has a logit at least as high as the right one, bool [B]; NaN is wrong too."""
    return ~(margin_loss(logits, labels) < 0)
