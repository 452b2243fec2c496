"""Repeated measurements, made in alternation so that whatever else the machine does hits all that is compared alike."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import flags

FLAGS = flags.FLAGS


@dataclasses.dataclass
class Series:
    """Repeated measurements of one thing, or ratios of two, round by round.

    Attributes:
        name: of what.
        values: the warm measurements, in the order they were made.
        unit: "s", "MiB" or, for a ratio, "".
        first: seconds of the first call, with tracing and compiling; None where there is no such thing.
        at_most: what the median must not exceed; None for no requirement.
        at_least: what the median must reach; None for no requirement.
        images: images that a call worked on, to tell images per second; None to tell nothing.
        flops: arithmetic of a call, to tell FLOP/s; None to tell nothing.
        cpu: seconds of all processors that each call took, where that was measured.
        about: what it is of, by name, for plots.
    """

    name: str
    values: Sequence[float]
    unit: str = "s"
    first: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    images: int | None = None
    flops: float | None = None
    cpu: Sequence[float] = ()
    about: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def quartiles(self) -> list[float]:
        """Lower quartile, median, upper quartile."""
        return np.percentile(self.values, [25, 50, 75]).tolist()

    @property
    def rates(self) -> dict[str, float]:
        """Images and floating-point operations per second at the median, as far as they are known."""
        counts = {"images_per_second": self.images, "flops_per_second": self.flops}
        return {name: count / self.quartiles[1] for name, count in counts.items() if count is not None}

    def to_json(self) -> dict:
        """Returns all that is known."""
        low, median, high = self.quartiles
        spread = {"median": median, "quartiles": [low, high], "interquartile_range": high - low}
        numbers = {"values": np.asarray(self.values).tolist(), "cpu": np.asarray(self.cpu).tolist()}
        return {**dataclasses.asdict(self), **numbers, **spread, **self.rates}

    def __str__(self):
        low, median, high = self.quartiles
        line = f"  {self.name:<44} {median:>10.4f} {self.unit:<3} {low:>10.4f} .. {high:<10.4f} "
        line += "" if self.first is None else f"{self.first:>8.2f}"
        if self.images is not None:
            line += f"{self.rates['images_per_second']:>9.1f} images/s"
        if self.flops is not None:
            line += f"{self.rates['flops_per_second'] / 1e9:>8.1f} GFLOP/s"
        if self.at_most is not None:
            line += f"{'ok' if median <= self.at_most else 'MISSED'}: at most {self.at_most:g}"
        if self.at_least is not None:
            line += f"{'ok' if median >= self.at_least else 'MISSED'}: at least {self.at_least:g}"
        return line.rstrip()


def alternate(functions: dict[str, Callable[[], float]]) -> dict[str, Series]:
    """Calls all functions in turn, once to compile, once to warm up, then `--repetitions` times.

    Each round starts with another one, so that none always comes behind the same neighbour.

    Args:
        functions: each does its work and returns the seconds that count.
    """
    names = list(functions)
    first = {name: timed(function)() for name, function in functions.items()}
    seconds, cpu = {name: [] for name in names}, {name: [] for name in names}
    for round_number in range(-1, FLAGS.repetitions):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            taken = functions[name]()
            if round_number >= 0:
                seconds[name].append(taken)
                cpu[name].append(time.process_time() - start)
    return {name: Series(name, np.array(seconds[name]), first=first[name], cpu=np.array(cpu[name])) for name in names}


def timed(function: Callable, *args) -> Callable[[], float]:
    """Returns a function that calls `function(*args)`, waits for the devices and returns the seconds."""

    def measure():
        start = time.perf_counter()
        function(*args)
        tf.test.experimental.sync_devices()
        return time.perf_counter() - start

    return measure
