"""A process that trains three steps and prints what it took, as JSON; `peer.py` starts it."""

from __future__ import annotations

import json
import pathlib
import sys
import time

from measures.peers import PEERS, make_peer, peer_parts, random_arrays, start_framework
from measures.shapes import Shapes


def memory(field: str) -> int:
    """Bytes of this process by a field of /proc/self/status: VmRSS is resident now, VmHWM its largest so far."""
    (line,) = (
        line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")
    )
    return int(line.split()[1]) * 1024


def ours(asked: dict):
    """Returns a training step of this project, the memory before it was built, and what asks for the GPU's."""
    from robgan_tf import command_line  # noqa: F401  # isort: skip  (before TensorFlow, whose log it quiets)

    import tensorflow as tf

    from measures.configured import build_stage, configure, network_file
    from measures.ours import our_parts
    from robgan_tf.run.machine import memory_in_use

    tf.config.threading.set_intra_op_parallelism_threads(asked["threads"])
    after_imports, shapes = memory("VmRSS"), Shapes(**asked["shapes"])
    settings = (asked[name] for name in ("width", "batch", "attack_steps", "discriminator_steps", "params"))
    configure(network_file(asked["network"]), *settings)
    stage = build_stage(asked["precision"], (shapes.side, shapes.side, shapes.channels))
    train = our_parts(stage, *random_arrays(shapes, stage.images_per_step))["iteration"]
    return train, after_imports, lambda: memory_in_use().get("gpu_memory_mib")


def theirs(asked: dict):
    """Returns a training step of a peer, the memory before it was built, and what asks for the GPU's."""
    start_framework(PEERS[asked["name"]], asked["threads"])
    after_imports, shapes = memory("VmRSS"), Shapes(**asked["shapes"])
    peer = make_peer(asked["name"], shapes, asked["precision"], asked["attack_steps"])
    steps = asked["discriminator_steps"]
    parts = peer_parts(peer, *random_arrays(shapes, steps * asked["batch"]), steps)
    return parts["iteration"], after_imports, peer.gpu_memory_mib


def main(asked: dict):
    """Does what was asked: a dictionary of the contender's name, its networks, and the settings of the training."""
    train, after_imports, gpu_memory_mib = (ours if asked["name"] == "ours" else theirs)(asked)
    train()
    seconds = time.time() - asked["started"]
    for _ in range(2):
        train()
    report = {"seconds_to_first_step": seconds, "after_imports": after_imports, "peak": memory("VmHWM")}
    print(json.dumps({**report, "gpu_memory_mib": gpu_memory_mib()}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
