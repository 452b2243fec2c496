"""What the tests of the reproduction share: all experiments, and their runs as they are described."""

import pathlib

from reproduction.experiments import EXPERIMENTS, comparison
from reproduction.runs import runs_of
from reproduction.scales import find, sizes

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL = [(one, data, scale) for one in EXPERIMENTS for scale, sets in sizes(one).items() for data in sets]


def described(experiment, data, scale, root, seeds=(0,), params=()):
    return runs_of(comparison(experiment, data, scale), find(experiment, scale, data), seeds, root, params)
