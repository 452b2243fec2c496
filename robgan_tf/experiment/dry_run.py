"""What a run would need, before it runs: data, arithmetic, memory of the devices, disk (`--dry_run`).

The stages' own steps are traced, and nothing is run but the reader of the data and one matrix product.
See docs/dry_run.md for what is counted and how well it agrees with measurements.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.experiment.build import Experiment
from robgan_tf.experiment.disk import disk_needs, free_bytes, readable
from robgan_tf.experiment.footprint import Footprint
from robgan_tf.experiment.machine_speed import gpu_memory, host_memory, matrix_product_rate, reader_rate
from robgan_tf.experiment.needs import (
    TENSORFLOW_BYTES,
    WORKSPACE,
    attack_needs,
    bytes_of,
    resident_bytes,
    step_needs,
    with_workspace,
)
from robgan_tf.keras2 import keras
from robgan_tf.run import devices
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.stage import Stage


def report(experiment: Experiment, run_dir: str) -> Iterator[str]:
    """Yields lines about what a run would need, each as soon as it is known; then warnings, "warning: ...".

    Args:
        experiment: the run.
        run_dir: its folder; only its disk is looked at.
    """
    warnings = []
    yield from _data(experiment)
    yield from _devices(experiment)
    yield from _players(experiment)
    needs = {}
    for stage in experiment.training_stages:
        yield from _length(stage, experiment)
        needs[stage] = step_needs(stage, experiment.data.image_shape, experiment.strategy)
    yield from _speed(experiment, needs, warnings)
    yield from _memory(experiment, needs, warnings)
    yield from _disk(experiment, pathlib.Path(run_dir), warnings)
    yield from (f"warning: {warning}" for warning in warnings)


def _data(experiment: Experiment) -> Iterator[str]:
    data = experiment.data
    height, width, channels = data.image_shape
    yield f"data: {data.name}, {data.num_classes} classes, {height}x{width} px, {channels} channel(s)"
    for name, split in data.splits.items():
        counts = split.counts(data.num_classes)
        yield f"  {name}: {len(split):,} images, {min(counts):,} to {max(counts):,} of a class"


def _devices(experiment: Experiment) -> Iterator[str]:
    strategy = experiment.strategy
    names = strategy.extended.worker_devices if strategy.num_replicas_in_sync > 1 else _single_device()
    yield (
        f"devices: {strategy.num_replicas_in_sync} replica(s) on {', '.join(_short(name) for name in names)}, "
        f"precision {keras.mixed_precision.global_policy().name}"
    )


def _single_device() -> list[str]:
    return ["GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"]


def _short(device: str) -> str:
    spec = tf.DeviceSpec.from_string(device if "/" in device else f"/device:{device}")
    return f"{spec.device_type}:{spec.device_index}"


def _players(experiment: Experiment) -> Iterator[str]:
    for name, player in experiment.networks.items():
        gradients = bytes_of(player.trainable_variables)
        yield f"{name}: {player.count_params():,} parameters; their gradients take {readable(gradients)} in an update"


def _length(stage: Stage, experiment: Experiment) -> Iterator[str]:
    examples = len(experiment.data.train)
    images = stage.total_steps * stage.images_per_step
    parts = f", in {stage.accumulation} parts" if stage.accumulation > 1 else ""
    yield (
        f"{stage.name_of_stage}: {stage.total_steps:,} steps of {stage.images_per_step} images "
        f"({stage.replica_batch_size} at once on each device{parts}), {examples / stage.images_per_step:,.1f} an "
        f"epoch; {images / examples:.3g} epochs, {images:,} images"
    )
    yield "  no attack" if stage.attacker is None else f"  attack: {stage.attacker}"


def _speed(experiment: Experiment, needs: dict, warnings: list[str]) -> Iterator[str]:
    replicas = experiment.strategy.num_replicas_in_sync
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    rate = matrix_product_rate(keras.mixed_precision.global_policy().compute_dtype)
    together = rate * (replicas if on_gpu else 1)  # logical CPU devices are one and the same
    yield (
        f"speed: a large matrix product runs at {together / 1e12:,.3f} TFLOP/s on "
        f"{f'{replicas} GPU(s)' if on_gpu else 'this CPU'}, which is more than training reaches"
    )
    for stage, need in needs.items():
        noise = experiment.configuration.cotraining_noise if isinstance(stage, CoTraining) else 0.0
        flops = need.flops * replicas / stage.images_per_step
        takes, gives = together / flops, reader_rate(experiment, stage.images_per_step, noise)
        yield (
            f"  {stage.name_of_stage}: {flops / 1e9:,.2f} GFLOP for each real image; the step can take at most "
            f"{takes:,.1f} images/s on these devices, the reader gives {gives:,.0f} images/s on this machine: enough "
            f"for devices of {gives * flops / 1e12:,.1f} TFLOP/s in all"
        )
        if gives < takes:
            warnings.append(
                f"{stage.name_of_stage}: the reader gives {gives:,.0f} images/s, fewer than the {takes:,.0f} that the "
                f"devices could take at most: they may wait for data. More CPU cores or fewer augmentations help."
            )


def _memory(experiment: Experiment, needs: dict, warnings: list[str]) -> Iterator[str]:
    replicas = experiment.strategy.num_replicas_in_sync
    weights, moments = resident_bytes(experiment)
    yield (
        f"memory of each device: {readable(weights)} weights, with averaged copies, and {readable(moments)} moments of "
        f"the optimizers, all the time; beside them"
    )
    totals = {}
    for stage, need in needs.items():
        yield f"  {stage.name_of_stage}: {readable(need.batch)} real images of a step, and intermediate results at most"
        phases = dict(need.phases)
        if stage is experiment.finetuning:
            count = min(experiment.evaluation.batch_size, len(experiment.data.validation))
            phases[f"validation ({count} images)"], _ = attack_needs(
                experiment, stage.result, experiment.validation_attacker, count
            )
        if stage.attacker is None:
            phases = {name: phase for name, phase in phases.items() if not name.startswith("attack")}
        yield from _phases(phases, warnings)
        peak = max([need.peak, *(phase.peak for phase in phases.values())])
        totals[stage.name_of_stage] = need.batch + with_workspace(peak)
    with experiment.strategy.scope(), devices.precision("float32"):
        classifier = experiment.result.inference_copy()  # as `run.evaluate` does
    copy, test = bytes_of(classifier.variables), len(experiment.data.test)
    count = min(experiment.evaluation.batch_size, experiment.evaluation.test_examples or test, test)
    attacked = [attack_needs(experiment, classifier, attack, count) for attack in experiment.evaluation.attacks]
    evaluation, images = max(attacked, key=lambda need: need[0].peak)
    yield f"  evaluation: {readable(copy)} float32 copy of the classifier, and intermediate results at most"
    yield from _phases({f"attack and classification of {count} images": evaluation}, warnings)
    totals["evaluation"] = copy + images + with_workspace(evaluation.peak)

    worst = max(totals, key=totals.get)
    device = weights + moments + totals[worst]
    yield (
        f"  in all {readable(device)}, in {worst}, with {WORKSPACE:.0%} on the intermediate results for the kernels' "
        f"own needs; on a GPU {readable(device + TENSORFLOW_BYTES)} with CUDA's"
    )
    splits = experiment.data.splits.values()
    data = sum(split.images.nbytes for split in splits if isinstance(split, Examples))
    if experiment.finetuning is not None and experiment.finetuning.generated is not None:
        data += experiment.finetuning.generated.nbytes
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    host = data + TENSORFLOW_BYTES + (0 if on_gpu else device * replicas)
    there = host_memory()
    yield (
        f"memory of this machine: {readable(host)} needed ({readable(data)} images, {readable(TENSORFLOW_BYTES)} "
        f"TensorFlow{'' if on_gpu else ', and the devices above'}), {readable(there) if there else 'unknown'} there"
    )
    machines = [("this machine", there, host)] if there else []
    machines += [(f"GPU {index}", size, device + TENSORFLOW_BYTES) for index, size in enumerate(gpu_memory())]
    for name, there, needed in machines:
        if needed > there:
            warnings.append(
                f"{name} has {readable(there)} of memory, the run needs {readable(needed)}: set the stages' "
                f"accumulation above 1, the networks' recompute to True, or lower batch_size."
            )


def _phases(phases: dict[str, Footprint], warnings: list[str]) -> Iterator[str]:
    for name, phase in phases.items():
        yield f"    {readable(phase.peak):>10} {name}"
        warnings += [f"{name}: {unknown} is not known, and not counted." for unknown in phase.unknown]


def _disk(experiment: Experiment, run_dir: pathlib.Path, warnings: list[str]) -> Iterator[str]:
    parts, free = disk_needs(experiment), free_bytes(run_dir)
    needed = sum(parts.values())
    yield f"disk: {readable(needed)} needed in {run_dir}, {readable(free)} free"
    yield from (f"    {readable(size):>10} {name}" for name, size in parts.items())
    if needed > free:
        warnings.append(
            f"the run needs {readable(needed)} of disk in {run_dir}, {readable(free)} are free: give another "
            f"--run_dir, or raise Experiment.sample_every."
        )
