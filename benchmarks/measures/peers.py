"""The peers' training, as functions of no arguments that do a part of it; and what all contenders share.

Imports no TensorFlow: the memory of a peer is measured in a process without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from measures.shapes import Shapes

PARTS = ("attack", "discriminator update", "generator update", "iteration", "evaluation")
# Each peer's framework, as a package of Python.
PEERS = {"well_written": "torch", "naive": "torch", "compiled": "torch", "jax": "jax"}
LEARNING_RATE = 1e-6  # so small that the weights stay about where they start; the time of a step does not depend on it
EPSILON = 0.0625
EVALUATION_STEPS, RELATIVE_STEP_SIZE = 20, 0.2


def start_framework(framework: str, threads: int):
    """Imports the framework of a peer, and gives it so many threads."""
    if framework == "jax":
        os.environ["PJRT_NPROC"] = str(threads)
        import jax

        found = os.environ.get("XLA_FLAGS")
        # Its new runtime for CPUs takes twice as long as the old one, which is there until 0.5. Before 0.4.32 that was
        # the only one, and an unknown flag would end the process.
        if (0, 4, 32) <= jax.__version_info__ < (0, 5):
            os.environ["XLA_FLAGS"] = f"{found or ''} --xla_cpu_use_thunk_runtime=false"
        jax.devices()  # reads both once and for all
        # TensorFlow reads the flags, too, and ends the process where it does not know one.
        os.environ.pop("XLA_FLAGS", None)
        if found is not None:
            os.environ["XLA_FLAGS"] = found
    else:
        import torch

        torch.set_num_threads(threads)


def peer_parts(peer, images: np.ndarray, labels: np.ndarray, steps: int) -> dict[str, Callable[[], object]]:
    """Returns a peer's parts (see `ours.our_parts`), with `steps` updates of the discriminator in an iteration."""
    batch = len(images) // steps
    some_images, some_labels = peer.images(images[:batch]), peer.labels(labels[:batch])
    evaluation = EVALUATION_STEPS, RELATIVE_STEP_SIZE
    parts = {
        "attack": lambda: peer.attack(some_images, some_labels),
        "discriminator update": lambda: peer.update_discriminator(some_images, some_labels, *peer.inputs(batch)),
        "generator update": lambda: peer.update_generator(*peer.inputs(batch)),
        "iteration": lambda: peer.train_step(images, labels, steps),
        "evaluation": lambda: peer.evaluate_pgd(some_images, some_labels, *evaluation),
    }
    return {name: lambda part=part: peer.wait(part()) for name, part in parts.items()}


def make_peer(name: str, shapes: Shapes, precision: str, attack_steps: int):
    """Returns the peer of that name, one of `PEERS`."""
    options = {"epsilon": EPSILON, "steps": attack_steps, "learning_rate": LEARNING_RATE, "precision": precision}
    if PEERS[name] == "jax":
        from measures.jax_baseline import Peer

        return Peer.of(shapes, **options)
    from measures.torch_baseline import Peer, best_device

    return Peer.of(shapes, naive=name == "naive", compile=name == "compiled", device=best_device(), **options)


def random_arrays(shapes: Shapes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images, float32 [count, H, W, C] in [-1, 1], and labels, int32 [count]."""
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, [count, shapes.side, shapes.side, shapes.channels]).astype(np.float32)
    return images, random.integers(0, shapes.num_classes, count).astype(np.int32)
