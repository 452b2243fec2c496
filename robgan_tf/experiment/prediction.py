"""How long a run takes on this machine: steps of its own stages and an attack on its classifier, timed.

See docs/dry_run.md for what is counted and how well it agrees with runs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from robgan_tf.experiment.machine_speed import batches_of
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment
    from robgan_tf.experiment.needs import RunNeeds, StepNeeds
    from robgan_tf.training.stage import Stage

# What the arithmetic alone would take longer for than so many seconds is timed with fewer images.
_LONG = 2.0
# At least so many calls are timed, and as many as fit in so many seconds; fewer where they take very long.
_CALLS, _SECONDS, _MOST_SECONDS = 3, 2.0, 15.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """What calls of a function took.

    Attributes:
        first: seconds of the first call, which traces and compiles.
        seconds: of a call behind it, the median.
        cpu: seconds of all processors that such a call took, on average.
    """

    first: float
    seconds: float
    cpu: float


def time_calls(
    call: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> Timing:
    """Times calls of a function that waits for its end.

    Args:
        call: the function.
        clock: tells the time in seconds.
        processor: tells the seconds of all processors that this process took so far.
    """

    def seconds():
        began = clock()
        call()
        return clock() - began

    first, times, before = seconds(), [], processor()
    while (len(times) < _CALLS and sum(times) < _MOST_SECONDS) or sum(times) < _SECONDS:
        times.append(seconds())
    return Timing(first, float(np.median(times)), (processor() - before) / len(times))


@dataclasses.dataclass(frozen=True)
class StepTime:
    """What a training step takes on this machine.

    Attributes:
        timing: of the step that was timed, the whole one or a part of it.
        images: real images of that.
        share: its share of a step's arithmetic.
        waiting: seconds that the reader needs for the images of a step, 0 if unknown: a step takes no less.
    """

    timing: Timing
    images: int
    share: float = 1.0
    waiting: float = 0.0

    @property
    def computing(self) -> float:
        """Seconds of a step whose images are there."""
        return self.timing.seconds / self.share

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return max(self.computing, self.waiting)

    def of_steps(self, steps: int) -> float:
        """Seconds of so many steps, with what the first one takes to trace and compile."""
        return max(self.timing.first - self.timing.seconds, 0.0) + steps * self.seconds

    def __str__(self):
        part = ""
        if self.share != 1:
            part = f" by the arithmetic, from {self.timing.seconds:.3g} s for {self.images} real images"
        elif self.seconds > self.timing.seconds:
            part = f", as the reader gives its images; {self.timing.seconds:.3g} s where they are there"
        return f"{self.seconds:.3g} s a step{part}; {self.timing.first:.3g} s the first, which is traced"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """How long a run takes on this machine.

    Attributes:
        steps: a step of each stage, by the stage's name.
        training: seconds of each stage, with the validations of fine-tuning.
        attacks: seconds of the evaluation's attacks where every image withstands them all: at most.
    """

    steps: dict[str, StepTime]
    training: dict[str, float]
    attacks: float


def predict(experiment: Experiment, needs: RunNeeds, rate: float, waiting: dict[Stage, float]) -> Prediction:
    """Times what the run does; its networks have other weights afterwards.

    Args:
        experiment: all parts; its replicas must be devices of this machine.
        needs: what they need.
        rate: floating-point operations a second of a large matrix product on a device.
        waiting: seconds that the reader needs for a step of each stage, where that is known.
    """
    steps, training = {}, {}
    for stage, need in needs.steps.items():
        step = time_step(experiment, stage, need, rate, waiting.get(stage, 0.0))
        validations = 0.0
        if stage is experiment.finetuning and need.flops:
            times = -(-stage.total_steps // experiment.configuration.validate_every)
            flops = needs.validation.flops * len(experiment.data.validation) / needs.validated
            # At the rate of the step, which attacks the same network.
            validations = times * flops * step.computing / need.flops
        steps[stage.name_of_stage] = step
        training[stage.name_of_stage] = step.of_steps(stage.total_steps) + validations
    return Prediction(steps, training, time_attacks(experiment, needs, rate))


def time_step(experiment: Experiment, stage: Stage, need: StepNeeds, rate: float, waiting: float = 0.0) -> StepTime:
    """Takes some steps of a stage, or of a part of its batch, on the run's own images; arguments as of `predict`."""
    timed = part_to_time(stage, need, rate)
    with experiment.strategy.scope():
        iterator = iter(experiment.strategy.experimental_distribute_dataset(batches_of(experiment, timed)))
        take_step = timed.step_function()
        # To fetch the metrics waits for the devices, and is part of the training.
        timing = time_calls(lambda: [float(value) for value in take_step(iterator).values()])
    return StepTime(timing, timed.images_per_step, share_of(timed, stage, need), waiting)


def part_to_time(stage: Stage, need: StepNeeds, rate: float) -> Stage:
    """Returns the stage itself where the arithmetic of a step takes two seconds at most, else one with fewer images.

    Then it is one micro-batch, or what of it is computed at once, or half as many images, and so on.

    Args:
        stage: co-training or fine-tuning.
        need: of its step.
        rate: see `predict`.
    """
    if need.flops <= _LONG * rate:
        return stage
    images = stage.replica_batch_size // stage.accumulation
    of_an_image = (need.flops - (stage.micro_batches - 1) * need.flops_of_a_round) / stage.replica_batch_size
    while images > 2 and images * of_an_image > _LONG * rate:
        images //= 2
    return stage.with_images_at_once(images)


def share_of(part: Stage, stage: Stage, need: StepNeeds) -> float:
    """Returns the share of a step's arithmetic that the step of a part of it has, see `part_to_time`."""
    if part is stage:
        return 1.0
    left_out = (stage.micro_batches - part.micro_batches) * need.flops_of_a_round
    return (1 - left_out / need.flops) * part.attacked_at_once / stage.attacked_at_once


def time_attacks(experiment: Experiment, needs: RunNeeds, rate: float) -> float:
    """Returns the seconds of the evaluation's attacks, of all runs on all images at all epsilons.

    A short attack is timed on some images, and all are counted by their arithmetic at the rate of that. Arguments as
    of `predict`.
    """
    evaluation, need = experiment.evaluation, needs.evaluation
    if not need.of_short_attack.flops:
        return 0.0
    count = max(min(need.count, int(need.count * _LONG * rate / need.of_short_attack.flops)), 1)
    examples = experiment.data.test.take(count, evaluation.seed)
    with experiment.strategy.scope():
        attacked = AttackedClassifier(need.classifier, need.short_attack, count)
        seconds = time_calls(lambda: list(attacked.batches(examples))).seconds / count
    flops = sum(attack.runs * footprint.flops for attack, footprint in zip(evaluation.attacks, need.attacks))
    images = need.examples + min(need.examples, len(experiment.data.train))
    return seconds * images * (len(evaluation.epsilons) - 1) * flops / need.of_short_attack.flops
