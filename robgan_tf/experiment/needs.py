"""What a run needs of its devices and of the disk: steps are traced, and nothing is run.

See docs/dry_run.md for what is counted and how well it agrees with measurements.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from robgan_tf.experiment.footprint import Footprint, bytes_of, footprint, size_in_bytes, variables_of
from robgan_tf.players.attacker.attack import Attack
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.players.pictures import generated_grid
from robgan_tf.run import devices
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.stage import Stage

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment

# What kernels take for themselves, results that live longer because operations run ahead of the program, and gaps
# between buffers: a share of the intermediate results, measured on CPUs (docs/dry_run.md).
WORKSPACE = 0.3
# TensorFlow itself, with its graphs, in the host's memory; on a GPU, the CUDA context and the libraries' handles.
TENSORFLOW_BYTES = 2**30
# Steps of the attack by which the evaluation is timed: what an attack does once weighs little beside them.
_SHORT_ATTACK = 5


@dataclasses.dataclass(frozen=True)
class StepNeeds:
    """What a training step of a stage needs on each device.

    Attributes:
        phases: the parts of a step and what the stage does beside its steps, by name.
        peak: bytes of intermediate results that live at once in a step, without `WORKSPACE`.
        flops: floating-point operations of a step on each device.
        flops_of_a_round: those of them that each of its micro-batches takes.
        batch: bytes of the real images of a step.
    """

    phases: dict[str, Footprint]
    peak: int
    flops: int
    flops_of_a_round: int
    batch: int


def step_needs(stage: Stage, image_shape: Sequence[int], strategy: tf.distribute.Strategy) -> StepNeeds:
    """Traces the parts of a stage's step, for one device of `strategy`.

    Args:
        stage: co-training or fine-tuning.
        image_shape: (height, width, channels).
        strategy: that the stage was made under.
    """
    size = stage.replica_batch_size

    def trace(function, *arguments):
        return _trace(strategy, function, *arguments)

    def batch(images):
        return tf.TensorSpec([images, *image_shape]), tf.TensorSpec([images], tf.int32)

    seed = tf.TensorSpec([2], tf.int32)
    real_batch = batch(stage.images_per_step // strategy.num_replicas_in_sync)
    images, _ = real_batch
    real = images.shape.num_elements() * images.dtype.size
    if isinstance(stage, CoTraining):
        generator = trace(stage.update_generator, seed)
        attack = trace(stage.attack, *batch(size), seed)
        discriminator = trace(stage.update_discriminator, *batch(size), seed)
        of_the_average = inspect.signature(stage.standardize_average_generator).parameters["batch_size"].default
        in_a_grid = inspect.signature(generated_grid).parameters["columns"].default
        phases = {
            "generator update": generator,
            "attack": attack,
            "discriminator update": discriminator,
            f"statistics of the averaged generator ({of_the_average} images)": _trace_statistics(stage, strategy),
            f"attack for the image grids ({in_a_grid} images)": trace(stage.attack, *batch(in_a_grid), seed),
        }
        # Under a strategy the first attack may run beside the generator's update, of which it needs nothing. Else it is
        # part of a graph that waits for the generator's new weights.
        with strategy.scope():
            beside = attack.peak if tf.distribute.has_strategy() else 0
        peak = max(generator.peak + beside, attack.peak, discriminator.peak)
        of_a_round = attack.flops + discriminator.flops
        flops = generator.flops + stage.micro_batches * of_a_round
        return StepNeeds(phases, peak, flops, of_a_round, real)
    attack = trace(stage.attack, *batch(stage.attacked_at_once), seed)
    step = trace(lambda *images_and_labels: stage.train_step(images_and_labels), *real_batch)
    return StepNeeds({"attack": attack, "whole step": step}, step.peak, step.flops, step.flops, real)


def _trace_statistics(stage: CoTraining, strategy: tf.distribute.Strategy) -> Footprint:
    """Returns what a batch of `standardize_average_generator` needs."""
    with strategy.scope():
        function = tf.function(lambda: stage.standardize_average_generator(batches=1), autograph=False)
        return footprint(function.get_concrete_function(), _first_device(strategy))


def _trace(strategy, function: Callable, *arguments: tf.TensorSpec) -> Footprint:
    with strategy.scope():
        # Without AutoGraph, as wherever graphs are traced.
        traced = tf.function(lambda *tensors: strategy.run(function, args=tensors), autograph=False)
        return footprint(traced.get_concrete_function(*arguments), _first_device(strategy))


def _first_device(strategy) -> str | None:
    return strategy.extended.worker_devices[0] if strategy.num_replicas_in_sync > 1 else None


def with_workspace(peak: int) -> int:
    """Returns the bytes to allow for intermediate results of `peak` bytes."""
    return round(peak * (1 + WORKSPACE))


def attack_needs(experiment: Experiment, classifier, attack, count: int) -> tuple[Footprint, int]:
    """Returns what an `AttackedClassifier` needs on each device for `count` images at once, and the images' bytes."""
    with experiment.strategy.scope():
        # With all images at work, as at the start: later they become fewer.
        attacked = AttackedClassifier(classifier, attack and attack.on_whole_batches(), count)
    images = tf.TensorSpec(
        [attacked.batch_size // experiment.strategy.num_replicas_in_sync, *experiment.data.image_shape]
    )
    epsilon = tf.constant(attack.threat_model.epsilon if attack else 0.0)
    seed = tf.constant([0, 0])
    need = _trace(
        experiment.strategy,
        lambda images, labels: attacked.attack_share(images, labels, epsilon, seed, run=tf.constant(0)),
        images,
        tf.TensorSpec(images.shape[:1], tf.int32),
    )
    return need, size_in_bytes(images)


def resident_bytes(experiment: Experiment) -> tuple[int, int]:
    """Returns the bytes of all weights (averaged copies too) and of the optimizers' variables, on each device."""
    weights, moments = [], []
    for stage in experiment.training_stages:
        for name, owner in stage.checkpoint_objects().items():
            (moments if "optimizer" in name else weights).extend(variables_of(owner))
    return bytes_of(weights), bytes_of(moments)


@dataclasses.dataclass(frozen=True)
class EvaluationNeeds:
    """What the evaluation's attacks need.

    Attributes:
        classifier: the float32 copy that is evaluated.
        examples: number of test images, and of training images beside them.
        count: images at once, over all replicas.
        images: their bytes on each device.
        attacks: of one run of each attack on so many images, on each device.
        short_attack: an attack of a few steps, to be timed.
        of_short_attack: of that, likewise.
    """

    classifier: Classifier
    examples: int
    count: int
    images: int
    attacks: list[Footprint]
    short_attack: Attack
    of_short_attack: Footprint


def evaluation_needs(experiment: Experiment) -> EvaluationNeeds:
    """Traces the attacks of the evaluation, for one device."""
    evaluation = experiment.evaluation
    with experiment.strategy.scope(), devices.precision("float32"):
        classifier = experiment.result.inference_copy()  # as `run.evaluate` does
    test = len(experiment.data.test)
    examples = min(evaluation.test_examples or test, test)
    count = min(evaluation.batch_size, examples)
    # The ball and norm of the evaluation. On the way it leaves no image out.
    ball = evaluation.attacks[0].threat_model
    short = PGD(ball, _SHORT_ATTACK, relative_step_size=1.0, last_point=True)
    needs = [attack_needs(experiment, classifier, attack, count) for attack in (*evaluation.attacks, short)]
    *attacks, of_short = (footprint for footprint, _ in needs)
    return EvaluationNeeds(classifier, examples, count, needs[0][1], attacks, short, of_short)


@dataclasses.dataclass(frozen=True)
class RunNeeds:
    """What a run needs of its devices.

    Attributes:
        steps: a step of each stage.
        validated: images that a validation of fine-tuning attacks at once.
        validation: of one such attack; None without fine-tuning.
        evaluation: of the evaluation.
    """

    steps: dict[Stage, StepNeeds]
    validated: int
    validation: Footprint | None
    evaluation: EvaluationNeeds


def run_needs(experiment: Experiment) -> RunNeeds:
    """Traces what the stages do."""
    shape, strategy, finetuning = experiment.data.image_shape, experiment.strategy, experiment.finetuning
    steps = {stage: step_needs(stage, shape, strategy) for stage in experiment.training_stages}
    validated, validation = min(experiment.evaluation.batch_size, len(experiment.data.validation)), None
    if finetuning is not None:
        validation, _ = attack_needs(experiment, finetuning.result, experiment.validation_attacker, validated)
    return RunNeeds(steps, validated, validation, evaluation_needs(experiment))
