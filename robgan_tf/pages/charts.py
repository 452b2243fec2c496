"""Line charts: where everything in them stands. `templates/charts.html` draws them as SVG."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from robgan_tf.pages.rendering import interval, percent

# The drawing area and the margins around it, in the units of the viewBox: about CSS pixels on a phone.
WIDTH, HEIGHT = 500, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 466, 10, 250
# Longer lines are drawn as means of neighbours, so that a page of a long run stays small.
_MOST_POINTS = 200


@dataclasses.dataclass(frozen=True)
class Line:
    """A line, in the coordinates of the chart.

    Attributes:
        name: for the legend.
        last: its last value as text, for the legend; empty if the legend shows none.
        words: what it shows, in words.
        points: (x, y) along the line.
        dots: (x, y, words) of points to mark.
        band: (x, y) around the band of its interval.
    """

    name: str
    last: str
    words: str
    points: Sequence[tuple[float, float]]
    dots: Sequence[tuple[float, float, str]] = ()
    band: Sequence[tuple[float, float]] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: what is drawn.
        description: the chart in words, for those who can't see it.
        x_ticks: (x, anchor, label, second label).
        y_ticks: (y, label).
        lines: at most four.
        axis: what the horizontal axis shows.
        reference: x of a vertical line, or None.
        about: what the lines mean.
        healthy: what a healthy run looks like.
    """

    title: str
    description: str
    x_ticks: Sequence[tuple[float, str, str, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]
    axis: str
    reference: float | None = None
    about: str = ""
    healthy: str = ""


def accuracy_chart(report: dict) -> Chart:
    """Returns accuracy against epsilon, with Wilson intervals, of what `robustness.json` holds."""
    curves = {"test": report["curve"]}
    if report.get("train"):
        curves["train"] = report["train"]["curve"]
    points, reference = report["curve"], report.get("reference_epsilon")
    x = _scale(0.0, max(point["epsilon"] for point in points) or 1.0, LEFT, RIGHT)
    y = _scale(0.0, 1.0, BOTTOM, TOP)

    def line(name, curve):
        places = [(x(point["epsilon"]), y(point["accuracy"])) for point in curve]
        bounds = [point.get("interval") or [point["accuracy"]] * 2 for point in curve]
        upper = [(place, y(high)) for (place, _), (_, high) in zip(places, bounds)]
        lower = [(place, y(low)) for (place, _), (low, _) in zip(places, bounds)]
        words = [
            f"{name}, epsilon {point['epsilon']:.4g}: {percent(point['accuracy'])} {interval(point.get('interval'))}"
            for point in curve
        ]
        ends = f"{name} from {percent(curve[0]['accuracy'])} to {percent(curve[-1]['accuracy'])}"
        dots = [(*place, word) for place, word in zip(places, words)]
        return Line(f"{name} images", "", ends, places, dots, upper + lower[::-1])

    lines = [line(*item) for item in curves.items()]
    every = -(-len(points) // 7)  # so that labels do not run into each other
    return Chart(
        title="Accuracy against epsilon",
        description=f"Accuracy against epsilon from 0 to {points[-1]['epsilon']:.4g}: "
        f"{'; '.join(line.words for line in lines)}. The table has all values.",
        x_ticks=[
            (x(point["epsilon"]), "middle", f"{point['epsilon']:.3g}", f"{point['epsilon_255']:.3g}")
            for point in points[::every]
        ],
        y_ticks=[(y(fifth / 5), f"{20 * fifth} %") for fifth in range(6)],
        lines=lines,
        axis="epsilon on [-1, 1]; below it, of 255 levels",
        reference=None if reference is None else x(reference),
    )


def line_chart(
    title: str,
    lines: dict[str, Sequence[tuple[float, float]]],
    share: bool = False,
    about: str = "",
    healthy: str = "",
) -> Chart | None:
    """Returns a chart of up to four lines against the training step; None if there is nothing to draw.

    The axis has 0, so that a small change looks small.

    Args:
        title: what is drawn.
        lines: points (step, value) of each line by its name, in the order of the steps; lines without points are left
            out.
        share: whether the values are shares, 0 to 1, which are shown in per cent.
        about: what the lines mean.
        healthy: what a healthy run looks like.
    """
    lines = {name: _thinned(points) for name, points in lines.items() if points}
    if not lines:
        return None
    steps = [step for points in lines.values() for step, _ in points]
    values = [value for points in lines.values() for _, value in points]
    first, last = min(steps), max(steps)
    ticks = [fifth / 5 for fifth in range(6)] if share else _ticks(min(0.0, *values), max(0.0, *values))
    x, y = _scale(first, max(last, first + 1), LEFT, RIGHT), _scale(ticks[0], ticks[-1], BOTTOM, TOP)
    figure = percent if share else "{:.3g}".format

    def line(name, points):
        shown = [value for _, value in points]
        words = f"{name} from {figure(shown[0])} to {figure(shown[-1])}, between {figure(min(shown))} and "
        places = [(x(step), y(value)) for step, value in points]
        dots = [(*places[0], "")] if len(places) == 1 else []
        return Line(name, figure(shown[-1]), words + figure(max(shown)), places, dots)

    drawn = [line(*item) for item in lines.items()]
    marks = {first: "start", last: "end"} if last > first else {first: "start"}
    return Chart(
        title=title,
        description=f"{title} against the training step, {first:,} to {last:,}: "
        f"{'; '.join(line.words for line in drawn)}.",
        x_ticks=[(x(step), anchor, f"{step:,}", "") for step, anchor in marks.items()],
        y_ticks=[(y(tick), f"{100 * tick:.0f} %" if share else f"{tick:g}") for tick in ticks],
        lines=drawn,
        axis="training step",
        about=about,
        healthy=healthy,
    )


def _scale(low: float, high: float, begin: float, end: float):
    """The linear map from [low, high] to [begin, end], rounded to tenths, which no one can see."""
    return lambda value: round(begin + (end - begin) * (value - low) / (high - low), 1)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[int, float]]:
    """At most `_MOST_POINTS` points, means of neighbours; the last one stays."""
    size = -(-len(points) // _MOST_POINTS)
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around `low` and `high`, four to seven of them."""
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # a flat line, drawn in the middle
        margin = abs(high) / 2 or 0.5
        low, high = low - margin, high + margin
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / 4))
    width = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 5)
    return [round(number * width, 12) for number in range(math.floor(low / width), math.ceil(high / width) + 1)]
