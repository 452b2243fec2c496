"""How the cost of a training step grows with batch, width, steps of the attack and size of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from measures.peer import Case, Size, make_case, start_frameworks
from measures.peers import EVALUATION_STEPS
from measures.shapes import Arithmetic
from measures.timing import Series, alternate, timed

FLAGS = flags.FLAGS
NETWORKS_BY_SIDE = {16: "16px", 32: "32px_sngan", 64: "64px", 128: "128px_143"}


class Point(NamedTuple):
    """A value of what grows, and what is measured there."""

    value: int
    size: Size
    attack_steps: int


def points(axis: str) -> list[Point]:
    """Returns where an axis is measured: multiples of the flags' batch and width, all networks, powers of two."""
    base = Size("32px_sngan", FLAGS.width, FLAGS.batch)
    if axis == "attack_steps":
        return [Point(steps, base, steps) for steps in (1, 2, 4, 8, 16)]
    if axis == "image_size":
        return [Point(side, base._replace(network=name), FLAGS.attack_steps) for side, name in NETWORKS_BY_SIDE.items()]
    values = [factor * getattr(base, axis) for factor in (1, 2, 4, 8)]
    return [Point(value, base._replace(**{axis: value}), FLAGS.attack_steps) for value in values]


AXES = ("batch", "width", "attack_steps", "image_size")


def measure_growth() -> Iterator[Series]:
    """Seconds of an iteration with one update of the discriminator, and the exponents of power laws fitted to them."""
    start_frameworks()
    precision = FLAGS.precision[0]
    for axis in FLAGS.growth:
        where = points(axis)
        cases = [make_case(f"{axis} {point.value}", point.size, precision, point.attack_steps, 1) for point in where]
        flops = [arithmetic(case, point) for case, point in zip(cases, where)]
        contenders = list(cases[0].parts)
        functions = {
            f"{case.name}: {name}": timed(case.parts[name]["iteration"]) for case in cases for name in contenders
        }
        series = alternate(functions)
        for case, point, count in zip(cases, where, flops):
            for name in contenders:
                about = {"axis": axis, "value": str(point.value), "what": name}
                one = series[f"{case.name}: {name}"]
                yield dataclasses.replace(one, name=f"{precision} {one.name}", flops=count, about=about)
        values = [point.value for point in where]
        yield Series(f"{axis}: exponent of the arithmetic", exponents(values, [[count] for count in flops]), "")
        for name in contenders:
            seconds = [series[f"{case.name}: {name}"].values for case in cases]
            yield Series(f"{axis}: exponent of {name}", exponents(values, seconds), "")


def arithmetic(case: Case, point: Point) -> float:
    """Operations of an iteration at a point."""
    return Arithmetic(case.shapes, point.size.batch, point.attack_steps, 1, EVALUATION_STEPS).parts()["iteration"]


def exponents(values: Sequence[float], costs: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns for each round p of the power law cost = c * value ** p that fits best, by least squares of logarithms.

    Args:
        values: [points] of what grows.
        costs: [points, rounds].
    """
    return np.polyfit(np.log(values), np.log(np.asarray(costs)), 1)[0]
