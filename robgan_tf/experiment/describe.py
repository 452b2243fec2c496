"""What an experiment is, in words and numbers: for the terminal, the run directory and the export."""

from __future__ import annotations

import json

from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, epsilon_255
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.machine import machine
from robgan_tf.run.provenance import provenance
from robgan_tf.serving import manifest
from robgan_tf.training.stage import Stage

# Bindings by which TensorBoard's tab HParams compares runs; what a run does not have stays empty there.
COMPARED = (
    "cotraining/LInf.epsilon",
    "finetuning/LInf.epsilon",
    "Generator.base_width",
    "Discriminator.base_width",
    "CoTraining.epochs",
    "CoTraining.losses",
    "CoTraining.penalty",
    "cotraining/Attacker.steps",
    "cotraining/linear.initial",
    "FineTuning.epochs",
    "FineTuning.fake_weight",
    "FineTuning.objective",
    "Experiment.classifier",
    "finetuning/Attacker.steps",
    "finetuning/linear.initial",
    "configure.precision",
    "Experiment.seed",
)
# What it compares: metrics, and the stage whose last value counts.
OUTCOMES = (
    ("test_accuracy", "evaluation"),
    ("test_clean_accuracy", "evaluation"),
    ("validation_accuracy", "finetuning"),
    ("generator_class_accuracy", "cotraining"),
)


def summary(experiment) -> str:
    """Returns what a run would do, for people: data, players, lengths."""
    data = experiment.data
    lines = [
        f"data: {data.name}, {data.num_classes} classes, images {data.image_shape}, "
        f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test",
        f"devices: {experiment.strategy.num_replicas_in_sync} replica(s) in {experiment.workers.count} process(es), "
        f"precision {keras.mixed_precision.global_policy().name}",
        *(f"{name}: {network.count_params():,} parameters" for name, network in experiment.networks.items()),
    ]
    if experiment.finetuning is not None and experiment.finetuning.generated is not None:
        lines.append(f"generated images: {experiment.finetuning.generated.origin}")
    for stage in experiment.training_stages:
        lines.append(
            f"{stage.name_of_stage}: {stage.total_steps} steps of {stage.images_per_step} images "
            f"({stage.total_steps / stage.steps_per_epoch:.3g} epochs), {attack_of(stage)}"
        )
    return "\n".join(lines)


def attack_of(stage: Stage) -> str:
    """Returns what a stage's attack is, for people."""
    if stage.attacker is None:
        return "no attack"
    free = "" if stage.attacks_apart else f", a step with each of {stage.updates_per_step} updates on a batch"
    return f"attack: {type(stage.attacker).__name__}, {stage.attacker}{free}"


def about_run(experiment) -> dict:
    """Returns what `manifest.json` of a run directory says: versions, commit, machine, data, players, lengths."""
    return {
        **provenance(),
        "machine": machine(),
        "run": summary(experiment).splitlines(),
        "seed": experiment.configuration.seed,
    }


def about_export(experiment, run_directory: RunDirectory) -> dict:
    """Returns what the manifest of an export says of the run that it came from."""
    report = run_directory.robustness
    epsilon = experiment.evaluation.reference_epsilon
    return {
        "dataset": experiment.data.name,
        "network": experiment.result.name,
        "training": summary(experiment).splitlines(),
        "threat_model": {
            "norm": experiment.evaluation.attacks[0].threat_model.norm,
            "epsilon": epsilon,
            "epsilon_255": epsilon_255(epsilon),
            "pixel_range": list(PIXEL_RANGE),
        },
        "accuracy": manifest.describe_accuracy(json.loads(report.read_text()) if report.exists() else None),
        "config": run_directory.config.read_text() if run_directory.config.exists() else None,
        **provenance(),
    }
