"""This project's training against peers in PyTorch and JAX, in alternation in one process."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import flags

from measures.configured import build_stage, configure, image_side, network_file
from measures.device import matrix_side, on_gpu
from measures.machine import REPOSITORY, is_there
from measures.ours import our_parts
from measures.peers import EVALUATION_STEPS, PEERS, make_peer, peer_parts, random_arrays, start_framework
from measures.shapes import Arithmetic, Shapes
from measures.timing import Series, alternate, timed
from robgan_tf import command_line

FLAGS = flags.FLAGS


class Size(NamedTuple):
    """Networks and batch that are compared."""

    network: str
    width: int
    batch: int


SIZES = {
    "32px_16": Size("32px_sngan", 16, 64),
    "32px_64": Size("32px_sngan", 64, 32),
    "64px_32": Size("64px", 32, 16),
    "128px_16": Size("128px_143", 16, 16),
    "128px_64": Size("128px_143", 64, 64),
}
SIZES_OF_CPUS = ("32px_16", "32px_64", "64px_32", "128px_16")
# An iteration must be so many times as fast as theirs.
REQUIRED = {
    ("naive", "float32"): 2.0,
    ("well_written", "float32"): 1.3,
    ("well_written", "mixed_bfloat16"): 1.2,
    ("jax", "float32"): 1.3,
    ("jax", "mixed_bfloat16"): 1.2,
}
HELD_IN_MEMORY = ("well_written", "jax")  # no more memory than these
# An iteration must reach so much of the matrix product's rate: of a size and precision on a CPU, of any size on a GPU.
REQUIRED_SHARE = {("32px_64", "float32"): 0.8}
REQUIRED_SHARE_OF_GPU = {"mixed_bfloat16": 0.3}


@dataclasses.dataclass
class Case:
    """A size in a precision, and all that are compared, by name and part."""

    name: str
    size: Size
    precision: str
    shapes: Shapes
    parts: dict[str, dict[str, Callable[[], object]]]

    @property
    def flops(self) -> dict[str, float]:
        """Arithmetic of each part."""
        steps = FLAGS.attack_steps, FLAGS.discriminator_steps, EVALUATION_STEPS
        return Arithmetic(self.shapes, self.size.batch, *steps).parts()

    def images(self, part: str) -> int:
        """Real images that a part works on."""
        return self.size.batch * (FLAGS.discriminator_steps if part == "iteration" else 1)


def frameworks() -> list[str]:
    """Those of `--peers`."""
    return list(dict.fromkeys(PEERS[name] for name in FLAGS.peers))


def start_frameworks():
    """Gives the peers' frameworks as many threads as TensorFlow has; ends the program where one is not installed."""
    missing = [framework for framework in frameworks() if not is_there(framework)]
    if missing:
        command_line.fail(f"{missing[0]} is not installed: pip install -c constraints-2.15.txt -e '.[bench]'")
    for framework in frameworks():
        start_framework(framework, FLAGS.threads)


def make_case(name: str, size: Size, precision: str, attack_steps: int, discriminator_steps: int) -> Case:
    """Builds all contenders."""
    configure(network_file(size.network), size.width, size.batch, attack_steps, discriminator_steps, FLAGS.gin_param)
    side = image_side()
    stage = build_stage(precision, (side, side, 3))
    shapes = Shapes.of(stage.generator, stage.discriminator)
    images, labels = random_arrays(shapes, size.batch * discriminator_steps)
    parts = {"ours": our_parts(stage, images, labels)}
    for peer in FLAGS.peers:
        made = make_peer(peer, shapes, precision, attack_steps)
        parts[peer] = peer_parts(made, images, labels, discriminator_steps)
    return Case(name, size, precision, shapes, parts)


def measure_peer() -> Iterator[Series]:
    """Every size, precision and part: seconds of all contenders, ratios, rates; then memory and time to first step."""
    start_frameworks()
    for name in FLAGS.sizes:
        for precision in FLAGS.precision:
            size = SIZES[name]._replace(**({"batch": FLAGS.batch} if FLAGS["batch"].present else {}))
            case = make_case(name, size, precision, FLAGS.attack_steps, FLAGS.discriminator_steps)
            for part in FLAGS.parts:
                yield from compare(case, part)
            yield from compare_processes(case)


def compare(case: Case, part: str) -> Iterator[Series]:
    """One part: seconds, ratios by the clock and by processor time, and the share of a matrix product's rate."""
    label, about = (
        f"{case.name} {case.precision} {part}",
        {"size": case.name, "precision": case.precision, "part": part},
    )
    functions = {name: timed(parts[part]) for name, parts in case.parts.items()}
    products = {f"matrix product, {name}": timed(product) for name, product in matrix_products(case.precision).items()}
    series = alternate({**functions, **products})  # before anything else is called: it times the first calls
    alone = {name: time_alone(function) for name, function in functions.items()} if part == "iteration" else {}
    ours, (ours_product, *_) = series["ours"], (series[name] for name in products)
    for name in functions:
        described = {"images": case.images(part), "flops": case.flops[part], "about": {**about, "what": name}}
        yield dataclasses.replace(series[name], name=f"{label}: {name}", **described)
    for name in products:
        yield dataclasses.replace(series[name], name=f"{label}: {name}", flops=2.0 * matrix_side() ** 3)
    for name in list(functions)[1:]:
        required = REQUIRED.get((name, case.precision)) if part == "iteration" else None
        ratio = Series(f"{label}: {name} / ours", series[name].values / ours.values, "", at_least=required)
        yield dataclasses.replace(ratio, about={**about, "what": f"{name} / ours"})
        yield Series(f"{label}: {name} / ours, CPU time", series[name].cpu / ours.cpu, "")
    share = case.flops[part] / ours.values / (2.0 * matrix_side() ** 3 / ours_product.values)
    required = required_share(case.name, case.precision, part)
    yield Series(f"{label}: ours / matrix product's rate", share, "", at_least=required)
    for name, seconds in alone.items():
        yield Series(f"{label}: {name} in alternation / alone", series[name].values / np.median(seconds), "")


def time_alone(function: Callable[[], float]) -> list[float]:
    """Seconds of calls one after the other, with no one else in between, after one that warms up."""
    function()
    return [function() for _ in range(1 + FLAGS.repetitions // 2)]


def required_share(size: str, precision: str, part: str) -> float | None:
    """The share of the matrix product's rate that a part must reach; None for no requirement."""
    if part != "iteration":
        return None
    return REQUIRED_SHARE_OF_GPU.get(precision) if on_gpu() else REQUIRED_SHARE.get((size, precision))


def matrix_products(precision: str) -> dict[str, Callable[[], object]]:
    """A large matrix product in all frameworks."""
    dtype, side = "float32" if precision == "float32" else "bfloat16", matrix_side()
    ours = tf.cast(tf.random.normal([side, side]), dtype)
    product = tf.function(tf.linalg.matmul)
    products = {"TensorFlow": lambda: product(ours, ours)}  # `timed` waits for it
    if "torch" in frameworks():
        import torch

        from measures.torch_baseline import best_device, wait_for

        device = torch.device(best_device())
        tensor = torch.randn(side, side, device=device).to(getattr(torch, dtype))
        products["PyTorch"] = lambda: wait_for(device, tensor @ tensor)
    if "jax" in frameworks():
        import jax

        array, jax_product = jax.numpy.asarray(ours.numpy()), jax.jit(jax.numpy.matmul)
        products["JAX"] = lambda: jax_product(array, array).block_until_ready()
    return products


def compare_processes(case: Case) -> Iterator[Series]:
    """Peak memory and time to the first training step, each contender in processes of its own."""
    label = f"{case.name} {case.precision}"
    found = {name: [probe(case, name) for _ in range(FLAGS.starts)] for name in case.parts}
    memory = {}
    for name, runs in found.items():
        required = 25 if name == "ours" and case.shapes.side == 32 else None
        seconds = [run["seconds_to_first_step"] for run in runs]
        yield Series(f"{label}: {name}, start to first step", seconds, at_most=required)
        memory[name] = np.array([run["peak"] - run["after_imports"] for run in runs]) / 2**20
        about = {"size": case.name, "precision": case.precision, "part": "memory", "what": name}
        yield Series(f"{label}: {name}, peak memory above imports", memory[name], "MiB", about=about)
        yield Series(f"{label}: {name}, peak memory", [run["peak"] / 2**20 for run in runs], "MiB")
        if runs[0]["gpu_memory_mib"] is not None:
            of_gpu = [run["gpu_memory_mib"] for run in runs]
            yield Series(f"{label}: {name}, peak memory of the GPU", of_gpu, "MiB")
    for name in memory:
        if name in HELD_IN_MEMORY:
            yield Series(f"{label}: memory, ours / {name}", memory["ours"] / memory[name], "", at_most=1.0)


def probe(case: Case, name: str) -> dict:
    """Trains a few steps in a new process; see `probe.py`."""
    steps = {"attack_steps": FLAGS.attack_steps, "discriminator_steps": FLAGS.discriminator_steps}
    asked = {
        "name": name,
        "precision": case.precision,
        **case.size._asdict(),
        **steps,
        "params": FLAGS.gin_param,
        "threads": FLAGS.threads,
        "shapes": dataclasses.asdict(case.shapes),
        "started": time.time(),
    }
    path = os.pathsep.join([str(REPOSITORY / "benchmarks"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "measures.probe", json.dumps(asked)]
    answer = subprocess.run(
        command,
        cwd=pathlib.Path.cwd(),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        command_line.fail(f"training of {name} in a process of its own failed: {answer.stderr[-2000:].strip()}")
    return json.loads(answer.stdout.splitlines()[-1])
