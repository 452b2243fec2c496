"""What a run would need, before it runs: data, arithmetic, memory of the devices, disk (`--dry_run`).

The stages' own steps are traced, and nothing is run but the reader of the data and one matrix product.
See docs/dry_run.md for what is counted and how well it agrees with measurements.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.experiment.build import Experiment
from robgan_tf.experiment.footprint import Footprint, footprint, size_in_bytes
from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.attacks import PGD
from robgan_tf.players.attacker.threat_model import epsilon_255
from robgan_tf.run import devices
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.samples import generated_grid
from robgan_tf.training.stage import Stage

# What kernels take for themselves, results that live longer because operations run ahead of the program, and gaps
# between buffers: a share of the intermediate results, measured on CPUs (docs/dry_run.md).
WORKSPACE = 0.3
# TensorFlow itself, with its graphs, in the host's memory; on a GPU, the CUDA context and the libraries' handles.
TENSORFLOW_BYTES = 2**30
# The exported graph, with its signatures.
_EXPORTED_GRAPH_BYTES = 2**19
# The two best classifiers, and the one that is being written.
_BEST_CHECKPOINTS = 3
# Cells of both image grids: 10 x 8 generated images, and 3 x 8 attacked ones.
_GRID_CELLS = 104
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class StepNeeds:
    """What a training step of a stage needs on each device.

    Attributes:
        phases: the parts of a step and what the stage does beside its steps, by name.
        peak: bytes of intermediate results that live at once in a step, without `WORKSPACE`.
        flops: floating-point operations of a step on each device.
        batch: bytes of the real images of a step.
    """

    phases: dict[str, Footprint]
    peak: int
    flops: int
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
    images, _ = batch(size * stage.micro_batches)
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
        flops = generator.flops + stage.micro_batches * (attack.flops + discriminator.flops)
        return StepNeeds(phases, peak, flops, real)
    attack = trace(stage.attack, *batch(stage.attacked_at_once), seed)
    step = trace(lambda *images_and_labels: stage.train_step(images_and_labels), *batch(size))
    return StepNeeds({"attack": attack, "whole step": step}, step.peak, step.flops, real)


def _trace_statistics(stage: CoTraining, strategy: tf.distribute.Strategy) -> Footprint:
    """Returns what a batch of `standardize_average_generator` needs."""
    with strategy.scope():
        function = tf.function(lambda: stage.standardize_average_generator(batches=1), autograph=False)
        return footprint(function.get_concrete_function(), _first_device(strategy))


def _trace(strategy, function: Callable, *arguments: tf.TensorSpec) -> Footprint:
    with strategy.scope():
        # Without autograph, as under `fit`.
        traced = tf.function(lambda *tensors: strategy.run(function, args=tensors), autograph=False)
        return footprint(traced.get_concrete_function(*arguments), _first_device(strategy))


def _first_device(strategy) -> str | None:
    return strategy.extended.worker_devices[0] if strategy.num_replicas_in_sync > 1 else None


def report(experiment: Experiment, run_dir: str) -> Iterator[str]:
    """Yields lines about what a run would need, each as soon as it is known; then warnings, "warning: ...".

    Args:
        experiment: the run.
        run_dir: its folder; only its disk is looked at.
    """
    warnings = []
    stages = [stage for stage in (experiment.cotraining, experiment.finetuning) if stage is not None]
    yield from _data(experiment)
    yield from _devices(experiment)
    yield from _players(experiment)
    needs = {}
    for stage in stages:
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
    for name in _SPLITS:
        split = getattr(data, name)
        yield f"  {name}: {len(split):,} images, {_per_class(split, data.num_classes)}"


def _per_class(split, classes: int) -> str:
    if hasattr(split, "class_counts"):
        counts = np.asarray(split.class_counts)
    else:
        counts = np.bincount(split.labels, minlength=classes)
    return f"{counts.min():,} to {counts.max():,} of a class"


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
        yield f"{name}: {player.count_params():,} parameters; their gradients take {_size(gradients)} in an update"


def _length(stage: Stage, experiment: Experiment) -> Iterator[str]:
    examples = len(experiment.data.train)
    images = stage.total_steps * stage.images_per_step
    parts = f", in {stage.accumulation} parts" if stage.accumulation > 1 else ""
    yield (
        f"{stage.name_of_stage}: {stage.total_steps:,} steps of {stage.images_per_step} images "
        f"({stage.replica_batch_size} at once on each device{parts}), {examples / stage.images_per_step:,.1f} an "
        f"epoch; {images / examples:.3g} epochs, {images:,} images"
    )
    attacker = stage.attacker
    if attacker is None:
        yield "  no attack"
        return
    model = attacker.threat_model
    yield (
        f"  attack: {attacker.steps} steps of {attacker.step_size:g} ({epsilon_255(attacker.step_size):.2f}/255), "
        f"{'random start' if attacker.random_start else 'from the image'}, in the {model}"
    )


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
        noise = experiment.cotraining_noise if isinstance(stage, CoTraining) else 0.0
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


def matrix_product_rate(dtype: str, seconds: float = 0.5) -> float:
    """Returns the floating-point operations a second of a large matrix product on the first device."""
    side = 8192 if tf.config.list_logical_devices("GPU") else 1024
    left = tf.cast(tf.random.stateless_uniform([side, side], [0, 0]), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(left, left)))
    product().numpy()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        product().numpy()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)  # the best, since other processes may disturb


def reader_rate(experiment: Experiment, batch_size: int, noise: float, seconds: float = 2.0) -> float:
    """Returns how many training images a second are read and augmented; what comes first, warming up, is left out."""
    batches = training_batches(
        experiment.data.train,
        batch_size,
        steps=10**9,
        seed=experiment.seed,
        augment=experiment.augment,
        noise=noise,
    )
    iterator = iter(batches)
    for _ in range(3):
        next(iterator)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not count:
        next(iterator)
        count += batch_size
    return count / (time.perf_counter() - start)


def _memory(experiment: Experiment, needs: dict, warnings: list[str]) -> Iterator[str]:
    replicas = experiment.strategy.num_replicas_in_sync
    weights, moments = resident_bytes(experiment)
    yield (
        f"memory of each device: {_size(weights)} weights, with averaged copies, and {_size(moments)} moments of the "
        f"optimizers, all the time; beside them"
    )
    totals = {}
    for stage, need in needs.items():
        yield f"  {stage.name_of_stage}: {_size(need.batch)} real images of a step, and intermediate results at most"
        phases = dict(need.phases)
        if stage is experiment.finetuning:
            count = min(experiment.evaluation.batch_size, len(experiment.data.validation))
            phases[f"validation ({count} images)"], _ = _attack_footprint(
                experiment, stage.result, experiment.validation_attacker and PGD(experiment.validation_attacker), count
            )
        if stage.attacker is None:
            phases = {name: phase for name, phase in phases.items() if not name.startswith("attack")}
        yield from _phases(phases, warnings)
        peak = max([need.peak, *(phase.peak for phase in phases.values())])
        totals[stage.name_of_stage] = need.batch + with_workspace(peak)
    with experiment.strategy.scope(), devices.precision("float32"):
        classifier = experiment.result.inference_copy()  # as `Experiment.evaluate` does
    copy, test = bytes_of(classifier.variables), len(experiment.data.test)
    count = min(experiment.evaluation.batch_size, experiment.evaluation.test_examples or test, test)
    attacked = [_attack_footprint(experiment, classifier, attack, count) for attack in experiment.evaluation.attacks]
    evaluation, images = max(attacked, key=lambda need: need[0].peak)
    yield f"  evaluation: {_size(copy)} float32 copy of the classifier, and intermediate results at most"
    yield from _phases({f"attack and classification of {count} images": evaluation}, warnings)
    totals["evaluation"] = copy + images + with_workspace(evaluation.peak)

    worst = max(totals, key=totals.get)
    device = weights + moments + totals[worst]
    yield (
        f"  in all {_size(device)}, in {worst}, with {WORKSPACE:.0%} on the intermediate results for the kernels' own "
        f"needs; on a GPU {_size(device + TENSORFLOW_BYTES)} with CUDA's"
    )
    splits = (getattr(experiment.data, name) for name in _SPLITS)
    data = sum(split.images.nbytes for split in splits if isinstance(split, Examples))
    if experiment.finetuning is not None and experiment.finetuning.generated is not None:
        data += experiment.finetuning.generated.nbytes
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    host = data + TENSORFLOW_BYTES + (0 if on_gpu else device * replicas)
    there = host_memory()
    yield (
        f"memory of this machine: {_size(host)} needed ({_size(data)} images, {_size(TENSORFLOW_BYTES)} TensorFlow"
        f"{'' if on_gpu else ', and the devices above'}), {_size(there) if there else 'unknown'} there"
    )
    machines = [("this machine", there, host)] if there else []
    machines += [(f"GPU {index}", size, device + TENSORFLOW_BYTES) for index, size in enumerate(gpu_memory())]
    for name, there, needed in machines:
        if needed > there:
            warnings.append(
                f"{name} has {_size(there)} of memory, the run needs {_size(needed)}: set the stages' accumulation "
                f"above 1, the networks' recompute to True, or lower batch_size."
            )


def _phases(phases: dict[str, Footprint], warnings: list[str]) -> Iterator[str]:
    for name, phase in phases.items():
        yield f"    {_size(phase.peak):>10} {name}"
        warnings += [f"{name}: {unknown} is not known, and not counted." for unknown in phase.unknown]


def with_workspace(peak: int) -> int:
    """Returns the bytes to allow for intermediate results of `peak` bytes."""
    return round(peak * (1 + WORKSPACE))


def _attack_footprint(experiment: Experiment, classifier, attack, count: int) -> tuple[Footprint, int]:
    """Returns what an `AttackedClassifier` needs on each device for `count` images at once, and the images' bytes."""
    with experiment.strategy.scope():
        attacked = AttackedClassifier(classifier, attack, count)
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
    for stage in filter(None, (experiment.cotraining, experiment.finetuning)):
        for name, owner in stage.checkpoint_objects().items():
            (moments if "optimizer" in name else weights).extend(_variables(owner))
    return bytes_of(weights), bytes_of(moments)


def _variables(owner) -> list[tf.Variable]:
    return [owner] if isinstance(owner, tf.Variable) else list(owner.variables)


def bytes_of(variables: Sequence[tf.Variable]) -> int:
    """Returns the bytes of variables, each counted once."""
    return sum(map(size_in_bytes, {id(variable): variable for variable in variables}.values()))


def host_memory() -> int | None:
    """Returns the bytes of memory of this machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def gpu_memory() -> list[int]:
    """Returns the bytes of memory of each NVIDIA GPU of this machine, as its driver's `nvidia-smi` tells them."""
    # TensorFlow tells how much it uses, and not how much there is.
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if shutil.which(command[0]) is None:
        return []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line) * 2**20 for line in result.stdout.split() if line.isdigit()]


def checkpoint_bytes(stage: Stage) -> int:
    """Returns the bytes of one checkpoint of a stage."""
    return bytes_of([variable for owner in stage.checkpoint_objects().values() for variable in _variables(owner)])


def _disk(experiment: Experiment, run_dir: pathlib.Path, warnings: list[str]) -> Iterator[str]:
    parts = {}
    upkeep, classifier = experiment.upkeep, bytes_of(experiment.classifier.variables)
    for stage in filter(None, (experiment.cotraining, experiment.finetuning)):
        # Those that are kept, and the one that is being written.
        count = upkeep.keep_checkpoints + 1 + (stage.total_steps // upkeep.keep_every if upkeep.keep_every else 0)
        parts[f"checkpoints of {stage.name_of_stage}"] = count * checkpoint_bytes(stage)
    if experiment.finetuning is not None:
        parts["checkpoints of the best classifiers"] = _BEST_CHECKPOINTS * classifier
    if experiment.cotraining is not None:
        height, width, _ = experiment.data.image_shape
        written = experiment.cotraining.total_steps // experiment.sample_every
        # Uncompressed RGB, and twice: as PNG and for TensorBoard.
        parts["image grids, at most"] = 2 * written * _GRID_CELLS * height * width * 3
    parts["export"] = classifier + _EXPORTED_GRAPH_BYTES
    needed = int(sum(parts.values()))
    existing = next(folder for folder in [run_dir.absolute(), *run_dir.absolute().parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    yield f"disk: {_size(needed)} needed in {run_dir}, {_size(free)} free"
    yield from (f"    {_size(size):>10} {name}" for name, size in parts.items())
    if needed > free:
        warnings.append(
            f"the run needs {_size(needed)} of disk in {run_dir}, {_size(free)} are free: give another --run_dir, or "
            f"raise Experiment.sample_every."
        )


def _size(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
