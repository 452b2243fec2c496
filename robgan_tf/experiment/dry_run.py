"""What a run would need, before it runs: data, time, memory of the devices, disk (`--dry_run`).

The stages' own steps are traced, and nothing is run but the reader of the data, one matrix product and, where they fit
in the memory of this machine, a few of the steps. See docs/dry_run.md for what is counted and how well it agrees with
measurements.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.data.names import first_line
from robgan_tf.experiment.describe import attack_of
from robgan_tf.experiment.disk import disk_needs, free_bytes, readable
from robgan_tf.experiment.footprint import Footprint, bytes_of
from robgan_tf.experiment.machine_speed import free_memory, gpu_memory, host_memory, matrix_product_rate, reader_rate
from robgan_tf.experiment.needs import TENSORFLOW_BYTES, WORKSPACE, RunNeeds, resident_bytes, run_needs, with_workspace
from robgan_tf.experiment.prediction import Prediction, predict
from robgan_tf.keras2 import keras
from robgan_tf.time_left import duration
from robgan_tf.training.stage import Stage

if TYPE_CHECKING:
    from robgan_tf.experiment.build import Experiment

# Steps are timed where so many times the memory that was estimated is free: a run has taken 1.4 times.
_RESERVE = 1.5


@dataclasses.dataclass
class _Verdicts:
    """What the first lines and the last ones say, gathered while the parts are counted.

    Attributes:
        room: what is needed of what there is, "memory 1 GiB of 24 GiB".
        short: whether something of that is too little.
        host: bytes needed of this machine's memory.
        gpu: bytes needed of each GPU's memory.
        rate: floating-point operations a second of a matrix product on a device.
        waiting: seconds that the reader needs for a step of each stage, where that is known.
        seconds: that the training takes at least.
        warnings: what may be too little, and what to do.
    """

    room: list[str] = dataclasses.field(default_factory=list)
    short: bool = False
    host: int = 0
    gpu: int = 0
    rate: float = 0.0
    waiting: dict[Stage, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    warnings: list[str] = dataclasses.field(default_factory=list)

    def need(self, needed: int, there: int | None, of_what: str, advice: str):
        """Compares what is needed, in bytes, with what is there."""
        self.room.append(f"{of_what} {readable(needed)} of {readable(there) if there else 'an unknown size'}")
        if there is not None and needed > there:
            self.short = True
            self.warnings.append(f"{of_what}: the run needs {readable(needed)}, {readable(there)} are there: {advice}")


def report(experiment: Experiment, run_dir: str) -> list[str]:
    """Returns lines about what a run would need.

    The first three say whether it will fit, how long it takes, and what is missing. Then comes what was counted, and
    warnings, "warning: ...".

    Args:
        experiment: the run, made for a dry run; its networks have other weights afterwards.
        run_dir: its folder; only its disk is looked at.
    """
    verdicts = _Verdicts()
    lines = [*_data(experiment), *_devices(experiment), *_players(experiment)]
    for stage in experiment.training_stages:
        lines += _length(stage)
    needs = run_needs(experiment)
    lines += _speed(experiment, needs, verdicts)
    lines += _memory(experiment, needs, verdicts)
    untimed, prediction = why_untimed(experiment, verdicts.short, verdicts.host, verdicts.gpu), None
    if not untimed:
        try:
            prediction = predict(experiment, needs, verdicts.rate, verdicts.waiting)
        except tf.errors.ResourceExhaustedError as error:
            untimed = f"memory ran out: {first_line(error)}"
    lines += _time(prediction, untimed)
    lines += _disk(experiment, pathlib.Path(run_dir), verdicts)
    missing = "nothing"
    if experiment.missing is not None:
        missing = f"the data; counted is what the configuration expects of them ({experiment.missing.rstrip('.')})"
    return [
        f"fits: {'no' if verdicts.short else 'yes'}: {', '.join(verdicts.room)}",
        f"takes: {_takes(prediction, verdicts.seconds, _devices_in_words(experiment))}",
        f"missing: {missing}",
        "",
        *lines,
        *(f"warning: {warning}" for warning in verdicts.warnings),
    ]


def why_untimed(experiment: Experiment, short: bool, needed: int, needed_of_gpu: int = 0) -> str:
    """Returns why no steps can be timed here, in words, or nothing where they can.

    Args:
        experiment: the run.
        short: whether the memory of this machine or of its GPUs is too little.
        needed: bytes that are needed of this machine's memory.
        needed_of_gpu: bytes that are needed of each GPU's memory.
    """
    replicas = experiment.strategy.num_replicas_in_sync
    if replicas > 1 and not tf.config.list_logical_devices("GPU"):
        return f"the {replicas} replicas are not devices of this machine"
    if short:
        return "the run does not fit in the memory"
    rooms = [("memory", free_memory(), needed)]
    rooms += [(f"memory of GPU {index}", free, needed_of_gpu) for index, free in enumerate(gpu_memory("free"))]
    for name, free, needs in rooms:
        if free is not None and needs * _RESERVE > free:
            return f"{readable(free)} of {name} are free, and a run may take up to {readable(round(needs * _RESERVE))}"
    return ""


def _takes(prediction: Prediction | None, at_least: float, on_devices: str) -> str:
    if prediction is None:
        return (
            f"at least {duration(at_least)} of training on {on_devices}, by the arithmetic alone; the evaluation comes "
            f"on top"
        )
    training = sum(prediction.training.values())
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in prediction.training.items())
    # Where other programs disturbed the matrix product more than the steps, its rate bounds nothing.
    bound = f"; at least {duration(at_least)} of training by the arithmetic alone" if at_least <= training else ""
    return (
        f"about {duration(training)} of training on this machine ({stages}), then an evaluation with at most "
        f"{duration(prediction.attacks)} of attacks, and its checks{bound}"
    )


def _time(prediction: Prediction | None, untimed: str) -> Iterator[str]:
    if prediction is None:
        yield f"time: no step was timed: {untimed}"
        return
    yield "time, as steps take here:"
    for name, step in prediction.steps.items():
        yield f"  {name}: {step}"
    yield f"  evaluation: {duration(prediction.attacks)} of attacks, if all images withstand them all"


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


def _devices_in_words(experiment: Experiment) -> str:
    on_gpu = tf.config.list_logical_devices("GPU")
    return f"{experiment.strategy.num_replicas_in_sync} GPU(s)" if on_gpu else "this CPU"


def _single_device() -> list[str]:
    return ["GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"]


def _short(device: str) -> str:
    spec = tf.DeviceSpec.from_string(device if "/" in device else f"/device:{device}")
    return f"{spec.device_type}:{spec.device_index}"


def _players(experiment: Experiment) -> Iterator[str]:
    for name, player in experiment.networks.items():
        gradients = bytes_of(player.trainable_variables)
        yield f"{name}: {player.count_params():,} parameters; their gradients take {readable(gradients)} in an update"


def _length(stage: Stage) -> Iterator[str]:
    images, epochs = stage.total_steps * stage.images_per_step, stage.total_steps / stage.steps_per_epoch
    parts = f", in {stage.accumulation} parts" if stage.accumulation > 1 else ""
    yield (
        f"{stage.name_of_stage}: {stage.total_steps:,} steps of {stage.images_per_step} images "
        f"({stage.replica_batch_size} at once on each device{parts}), {epochs:.3g} epochs, {images:,} images"
    )
    yield f"  {attack_of(stage)}"


def _speed(experiment: Experiment, needs: RunNeeds, verdicts: _Verdicts) -> Iterator[str]:
    replicas = experiment.strategy.num_replicas_in_sync
    rate = verdicts.rate = matrix_product_rate(keras.mixed_precision.global_policy().compute_dtype)
    # Logical CPU devices are one and the same.
    together = rate * (replicas if tf.config.list_logical_devices("GPU") else 1)
    yield f"speed: a large matrix product runs at {together / 1e12:,.3f} TFLOP/s on {_devices_in_words(experiment)}"
    for stage, need in needs.steps.items():
        flops = need.flops * replicas / stage.images_per_step
        takes, images = together / flops, stage.total_steps * stage.images_per_step
        counted = (
            f"  {stage.name_of_stage}: {flops / 1e9:,.2f} GFLOP for each real image, at most {takes:,.1f} images/s"
        )
        if experiment.missing is not None:
            verdicts.seconds += images / takes
            yield f"{counted}; the reader was not timed, for want of data"
            continue
        gives = reader_rate(experiment, stage)
        verdicts.seconds += images / min(takes, gives)
        verdicts.waiting[stage] = stage.images_per_step / gives
        yield f"{counted}; the reader gives {gives:,.0f} images/s, enough for {gives * flops / 1e12:,.1f} TFLOP/s"
        if gives < takes:
            verdicts.warnings.append(
                f"{stage.name_of_stage}: the reader gives {gives:,.0f} images/s, fewer than the {takes:,.0f} that the "
                f"devices could take at most: they may wait for data. More CPU cores or fewer augmentations help."
            )


def _memory(experiment: Experiment, needs: RunNeeds, verdicts: _Verdicts) -> Iterator[str]:
    replicas = experiment.strategy.num_replicas_in_sync
    weights, moments = resident_bytes(experiment)
    yield (
        f"memory of each device: {readable(weights)} weights, with averaged copies, and {readable(moments)} moments of "
        f"the optimizers, all the time; beside them intermediate results of"
    )
    totals = {}
    for stage, need in needs.steps.items():
        phases = dict(need.phases)
        if stage is experiment.finetuning:
            phases[f"validation ({needs.validated} images)"] = needs.validation
        if not stage.attacks_apart:
            phases = {name: phase for name, phase in phases.items() if not name.startswith("attack")}
        yield f"  {stage.name_of_stage}: {readable(need.batch)} real images of a step; {_phases(phases, verdicts)}"
        peak = max([need.peak, *(phase.peak for phase in phases.values())])
        totals[stage.name_of_stage] = need.batch + with_workspace(peak)
    need = needs.evaluation
    copy, attack = bytes_of(need.classifier.variables), max(need.attacks, key=lambda attack: attack.peak)
    phases = {f"attack and classification of {need.count} images": attack}
    yield f"  evaluation: {readable(copy)} float32 copy of the classifier; {_phases(phases, verdicts)}"
    totals["evaluation"] = copy + need.images + with_workspace(attack.peak)

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
    yield (
        f"memory of this machine: {readable(host)} needed ({readable(data)} images, {readable(TENSORFLOW_BYTES)} "
        f"TensorFlow{'' if on_gpu else ', and the devices above'})"
    )
    advice = (
        "set the stages' accumulation above 1, the networks' recompute to True, or lower batch_size (docs/memory.md)."
    )
    verdicts.need(host, host_memory(), "memory of this machine", advice)
    verdicts.gpu = device + TENSORFLOW_BYTES
    for index, size in enumerate(gpu_memory()):
        verdicts.need(verdicts.gpu, size, f"memory of GPU {index}", advice)


def _phases(phases: dict[str, Footprint], verdicts: _Verdicts) -> str:
    for name, phase in phases.items():
        verdicts.warnings += [f"{name}: {unknown} is not known, and not counted." for unknown in phase.unknown]
    return ", ".join(f"{name} {readable(phase.peak)}" for name, phase in phases.items())


def _disk(experiment: Experiment, run_dir: pathlib.Path, verdicts: _Verdicts) -> Iterator[str]:
    parts = disk_needs(experiment)
    needed = sum(parts.values())
    yield f"disk: {readable(needed)} needed in {run_dir}: " + ", ".join(
        f"{name} {readable(size)}" for name, size in parts.items()
    )
    verdicts.need(needed, free_bytes(run_dir), "disk", "give another --run_dir, or raise Experiment.sample_every.")
