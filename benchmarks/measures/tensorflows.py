"""Two TensorFlows against each other: the same training steps, a process for each, which take turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import flags

from measures.configured import REPOSITORY
from measures.timing import Series
from robgan_tf import command_line

FLAGS = flags.FLAGS
MIB = 2**20


def measure_tensorflows() -> Iterator[Series]:
    """Steps of both stages of the demo, and of co-training in each `--precision`: this Python and `--other_python`."""
    if not FLAGS.other_python:
        command_line.fail("--measure=tensorflows needs --other_python, a Python that has the other TensorFlow")
    for stage in ("cotraining", "finetuning"):
        yield from compare(f"digits, {stage}", {"stage": stage})
    for precision in FLAGS.precision:
        networks = {"network": FLAGS.network or "32px_sngan", "width": FLAGS.width, "precision": precision}
        networks.update(batch=FLAGS.batch, attack_steps=FLAGS.attack_steps)
        networks.update(discriminator_steps=FLAGS.discriminator_steps)
        yield from compare(f"{networks['network']}, ch {FLAGS.width}, {precision}", {"stage": None, **networks})


def compare(label: str, asked: dict) -> Iterator[Series]:
    """Lets the two train in turn, about `--turn` seconds at a time, each as often in front as behind."""
    asked = {**asked, "params": FLAGS.gin_param, "threads": FLAGS.threads}
    with Trainer(sys.executable, asked) as this, Trainer(FLAGS.other_python, asked) as other:
        if this.version == other.version:
            command_line.fail(f"--other_python has TensorFlow {other.version}, as this Python has: name another one")
        steps = this.steps_of_a_turn(FLAGS.turn)
        other.train(steps)
        turns = {this: [], other: []}
        for round_number in range(FLAGS.repetitions):
            for trainer in (this, other) if round_number % 2 else (other, this):
                turns[trainer].append(trainer.train(steps))
    for trainer, taken in turns.items():
        about = {"tensorflow": trainer.version, "steps_of_a_turn": str(steps)}
        name, seconds = f"{label}: TensorFlow {trainer.version}", np.array([turn.seconds for turn in taken])
        first, cpu = trainer.seconds_to_first_steps, np.array([turn.cpu for turn in taken])
        yield Series(f"{name}, steps a second", steps / seconds, "/s", first=first, cpu=cpu, about=about)
        yield Series(f"{name}, peak memory", [trainer.peak / MIB], "MiB", about=about)
        yield Series(f"{name}, peak above imports", [(trainer.peak - trainer.after_imports) / MIB], "MiB", about=about)
    ratio = f"{label}: speed, {other.version} / {this.version}"
    for kind, field in (("", "seconds"), (", by CPU time", "cpu")):
        mine, theirs = ([getattr(turn, field) for turn in turns[trainer]] for trainer in (this, other))
        yield Series(f"{ratio}{kind}", np.array(mine) / np.array(theirs), "")
    yield Series(f"{label}: peak memory, {other.version} / {this.version}", [other.peak / this.peak], "")


class Turn(NamedTuple):
    """Seconds of the clock and of all processors that a turn took."""

    seconds: float
    cpu: float


class Trainer(contextlib.AbstractContextManager):
    """A process of `turns.py`, which waits between its turns.

    Attributes:
        version: of its TensorFlow.
        peak: bytes, the most that it has had resident so far.
        after_imports: bytes resident before anything was built.
        seconds_to_first_steps: from its start to the end of its second step.
    """

    def __init__(self, python: str, asked: dict):
        path = os.pathsep.join([str(REPOSITORY / "benchmarks"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        self._process = command_line.or_fail(
            lambda: subprocess.Popen(
                [python, "-m", "measures.turns", json.dumps({**asked, "started": time.time()})],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        start = self._answer()
        self.version, self.after_imports = start["tensorflow"], start["after_imports"]
        self.seconds_to_first_steps = start["seconds"]

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            command_line.fail(f"{self._process.args[0]} ended while it trained: see its own message above")
        answer = json.loads(line)
        self.peak = answer["peak"]
        return answer

    def train(self, steps: int) -> Turn:
        """Takes so many steps."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Turn(answer["seconds"], answer["cpu"])

    def steps_of_a_turn(self, seconds: float) -> int:
        """Returns how many steps take about so many seconds, at least one."""
        self.train(1)
        return max(round(seconds / (self.train(3).seconds / 3)), 1)

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
