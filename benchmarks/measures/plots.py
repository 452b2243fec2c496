"""Plots of what `peer` and `growth` measured. Needs matplotlib."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from measures.machine import is_there
from measures.timing import Series
from robgan_tf import command_line


def need_matplotlib():
    """Ends the program where matplotlib is not installed."""
    if not is_there("matplotlib"):
        command_line.fail("--plot needs matplotlib: pip install matplotlib")


def plot(measured: Sequence[Series], path: pathlib.Path):
    """Writes one image: a panel for each size and precision with all ratios, and for each axis of growth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {}
    for one in measured:
        about = one.about
        if "axis" in about:
            panels.setdefault(f"growth with {about['axis'].replace('_', ' ')}", []).append(one)
        elif " / ours" in about.get("what", ""):
            panels.setdefault(f"{about['size']} {about['precision']}", []).append(one)
    if not panels:
        return
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, series) in zip(axes.flat, panels.items()):
        (_lines if title.startswith("growth") else _bars)(axis, series)
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _bars(axis, series: Sequence[Series]):
    """How many times as long the others take, median and quartiles."""
    parts = list(dict.fromkeys(one.about["part"] for one in series))
    names = list(dict.fromkeys(one.about["what"] for one in series))
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        chosen = {one.about["part"]: one.quartiles for one in series if one.about["what"] == name}
        where = [parts.index(part) + (number - (len(names) - 1) / 2) * height for part in chosen]
        low, median, high = zip(*chosen.values())
        spread = [[m - q for m, q in zip(median, low)], [q - m for m, q in zip(median, high)]]
        axis.barh(where, median, height, xerr=spread, label=name.replace("_", " "))
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(parts)), parts, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("time, theirs / ours")


def _lines(axis, series: Sequence[Series]):
    """Seconds by the value that grows, both logarithmic."""
    for name in dict.fromkeys(one.about["what"] for one in series):
        chosen = [one for one in series if one.about["what"] == name]
        values = [int(one.about["value"]) for one in chosen]
        low, median, high = zip(*(one.quartiles for one in chosen))
        axis.plot(values, median, marker="o", markersize=3, label=name.replace("_", " "))
        axis.fill_between(values, low, high, alpha=0.2)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_ylabel("seconds")
