"""Attacks of the evaluation: what makes adversarial images of a classifier, with or without its gradients.

All have one shape: (classifier, images, labels, seed, run) -> adversarial images within the threat model. They live
within a `tf.function`, take the classifier in inference mode, assign nothing, and draw the same numbers for the same
seed. An attack of several runs (restarts, target classes) does one of them at a call, so that the caller goes on with
the images that still stand.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import inspect
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.losses import class_loss
from robgan_tf.players.attacker.losses import likely_wrong_class
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import ThreatModel

# What holds for one epsilon or for all attacks, and so stands elsewhere in a report.
_ELSEWHERE = ("epsilon", "epsilon_255", "pixel_range", "step_size")


class Attack(abc.ABC):
    """One attack with all its settings.

    Attributes:
        name: what tables call it.
        needs_gradient: whether it asks the attacked classifier for gradients; else it is a black-box attack.
        threat_model: norm, epsilon and projection.
        runs: how many calls make the whole attack, each on the images that still stand.
    """

    name: str
    needs_gradient = True
    threat_model: ThreatModel
    runs = 1

    @abc.abstractmethod
    def __call__(self, logits: Callable, images: tf.Tensor, labels: tf.Tensor, seed, run=0) -> tf.Tensor:
        """Returns adversarial images, float32 [B, H, W, C], within the threat model around `images`.

        Args:
            logits: the classifier: images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K].
            images: clean images, float32 [B, H, W, C] in [-1, 1].
            labels: their right classes, int32 [B].
            seed: int32 [2]; another for each run.
            run: which of the `runs` it is, from 0, as a number or an int32 scalar.
        """

    def check_classes(self, num_classes: int) -> None:
        """Raises ValueError where the attack needs more classes; most take any number."""
        del num_classes

    def with_epsilon(self, epsilon) -> Attack:
        """Returns the same attack on a ball of another radius, a number or a scalar tensor."""
        other = copy.copy(self)
        other.threat_model = dataclasses.replace(self.threat_model, epsilon=epsilon)
        return other

    @abc.abstractmethod
    def describe(self) -> dict:
        """Returns name, label for people, and all settings but epsilon, for reports."""


class GradientAttack(Attack):
    """What attacks along the classifier's gradient share: what they maximise, and their runs.

    Args:
        objective: loss of each image that is maximised, (logits [B, K], labels [B]) -> [B]; with `targets` it takes the
            target classes too. See `losses`.
        targets: 0 for an untargeted attack; else each image is driven to so many wrong classes, the most likely one of
            the clean image first, a run for each. Beyond the number of wrong classes they come again.
        restarts: how many times it is tried, from other random points.

    Raises:
        ValueError: for numbers out of their range, or an objective that does not fit `targets`.
    """

    def __init__(self, objective: Callable, targets: int, restarts: int):
        check_count(self, "restarts", restarts, 1)
        check_count(self, "targets", targets, 0)
        takes_targets = "targets" in inspect.signature(objective).parameters
        if takes_targets != (targets > 0):
            name, kind = type(self).__name__, "takes target classes" if takes_targets else "takes no target classes"
            raise ValueError(
                f"{name}.objective = @{objective.__name__} {kind}, and {name}.targets is {targets}: give a targeted "
                f"objective with targets of 1 or more, or another one with targets = 0."
            )
        self.objective = objective
        self.targets = targets
        self.restarts = restarts

    def check_classes(self, num_classes: int):
        """Raises ValueError where what is maximised needs more classes."""
        fewest = max(getattr(self.objective, "fewest_classes", 1), 2 if self.targets else 1)
        if num_classes < fewest:
            raise ValueError(
                f"{type(self).__name__}.objective = @{self.objective.__name__} with targets = {self.targets} needs "
                f"{fewest} classes, the data has {num_classes}: "
                + (
                    "an attack with targets needs a wrong class; set targets = 0 and @class_loss."
                    if num_classes < 2
                    else f"take @{'targeted_' if self.targets else ''}margin_loss, which needs two."
                )
            )

    @property
    def runs(self) -> int:
        return self.restarts * max(self.targets, 1)

    def loss(self, logits: Callable, images: tf.Tensor, labels: tf.Tensor, run) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what a run maximises, as a function of the attacked images' logits [B, K]."""
        if not self.targets:
            return lambda outputs: self.objective(outputs, labels)
        targets = likely_wrong_class(logits(images), labels, run % self.targets)
        return lambda outputs: self.objective(outputs, labels, targets)

    def _runs_label(self) -> str:
        targets = f", {self.targets} targets" if self.targets else ""
        return targets + (f", {self.restarts} restarts" if self.restarts > 1 else "")

    def describe(self):
        return {"objective": self.objective.__name__, "targets": self.targets, "restarts": self.restarts}


@gin.configurable
class PGD(GradientAttack):
    """The training's attacker with any objective; with one step and no random start it is FGSM.

    Its result is where the last step ends (Madry et al., ICLR 2018), as in other libraries, be it the worst point or
    not.

    Args:
        attacker: threat model, steps and random start.
        objective: see `GradientAttack`.
        targets: see there.
        restarts: see there.

    Raises:
        ValueError: as there, and for restarts without a random start, which would be one and the same.
    """

    def __init__(
        self,
        attacker: Attacker = gin.REQUIRED,
        objective: Callable = class_loss,
        targets: int = 0,
        restarts: int = 1,
    ):
        super().__init__(objective, targets, restarts)
        if restarts > 1 and not attacker.random_start:
            raise ValueError(
                f"PGD.restarts = {restarts} would do the same {restarts} times: set the attacker's random_start."
            )
        self.attacker = attacker
        self.threat_model = attacker.threat_model
        self.steps = attacker.steps

    @property
    def name(self):
        return "pgd" if self.steps > 1 or self.attacker.random_start else "fgsm"

    def with_epsilon(self, epsilon):
        other = copy.copy(self)
        other.attacker = self.attacker.with_epsilon(epsilon)
        other.threat_model = other.attacker.threat_model
        return other

    def __call__(self, logits, images, labels, seed, run=0):
        loss = self.loss(logits, images, labels, run)
        return self.attacker(images, lambda images: loss(logits(images)), seed)

    def describe(self):
        settings = {key: value for key, value in self.attacker.describe().items() if key not in _ELSEWHERE}
        if self.attacker.absolute_step_size is not None:
            settings["step_size"] = self.attacker.absolute_step_size
        settings.update(super().describe())
        settings["name"] = self.name
        label = f"{self.name.upper()}-{self.steps} on {settings['objective']}{self._runs_label()}"
        return {**settings, "label": label}


@gin.configurable
class Noise(Attack):
    """Points drawn uniformly from the ball: what any attack has to beat.

    Args:
        threat_model: norm, epsilon and projection.
        restarts: how many points are tried.

    Raises:
        ValueError: for fewer than one.
    """

    name = "noise"
    needs_gradient = False

    def __init__(self, threat_model: ThreatModel = gin.REQUIRED, restarts: int = 10):
        check_count(self, "restarts", restarts, 1)
        self.threat_model = threat_model
        self.runs = restarts

    def __call__(self, logits, images, labels, seed, run=0):
        perturbation = self.threat_model.random_perturbation(tf.shape(images), seed)
        return self.threat_model.project(images + perturbation, images)

    def describe(self):
        label = f"uniform noise, the worst of {self.runs}"
        return {"name": self.name, "label": label, "norm": self.threat_model.norm, "restarts": self.runs}


@gin.configurable
class Transfer(Attack):
    """Another attack on another classifier, whose adversarial images this one is given.

    Args:
        attack: the attack on the other classifier.
        source: that classifier, images float32 [B, H, W, C] in [-1, 1] -> class logits [B, K], such as
            `@load_logits()`.
    """

    name = "transfer"
    needs_gradient = False  # of the attacked one

    def __init__(self, attack: Attack = gin.REQUIRED, source: Callable = gin.REQUIRED):
        self.attack = attack
        self.source = source
        self.threat_model = attack.threat_model
        self.runs = attack.runs

    def with_epsilon(self, epsilon):
        return Transfer(self.attack.with_epsilon(epsilon), self.source)

    def __call__(self, logits, images, labels, seed, run=0):
        return self.attack(self.source, images, labels, seed, run)

    def describe(self):
        settings = self.attack.describe()
        source = getattr(self.source, "directory", None) or getattr(self.source, "__name__", str(self.source))
        label = f"transfer of {settings['label']}"
        return {**settings, "name": self.name, "label": label, "attack": settings["name"], "source": source}


def check_count(attack: Attack, name: str, count: int, least: int):
    """Raises ValueError, in the name of the attack's parameter `name`, unless `count` is a whole number >= `least`."""
    if not isinstance(count, int) or count < least:
        raise ValueError(f"{type(attack).__name__}.{name} must be a whole number >= {least}, got {count!r}.")
