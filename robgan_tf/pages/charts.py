"""Charts as SVG within a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from robgan_tf.pages.elements import Html, element, escaped, percent, section, table

# The drawing area of a curve and the margins around it, in the units of its viewBox: about CSS pixels on a phone.
_WIDTH, _HEIGHT = 500, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 34, 30, 56
# Of a line at most so many points are drawn, each the mean of its neighbours.
_MOST_POINTS = 200


def accuracy_section(report: dict) -> Html:
    """Returns the section on accuracy against epsilon of what `robustness.json` holds: curve and table."""
    curves = {"test": report["curve"]}
    if report.get("train"):
        curves["train"] = report["train"]["curve"]
    rows = []
    for points in zip(*curves.values()):
        cells = (percent(point["accuracy"], point.get("interval")) for point in points)
        rows.append([f"{points[0]['epsilon']:.4g}", f"{points[0]['epsilon_255']:.4g}/255", *cells])
    head = ["epsilon", "of 255 levels", *(f"{name} (95 % interval)" for name in curves)]
    words = "The band is Wilson's 95 % interval. The dotted line is the epsilon of the figures above."
    values = element("details", element("summary", "Values"), table("Accuracy against epsilon", head, rows), open="")
    figure = element("div", accuracy_curve(curves, report.get("reference_epsilon")), element("p", words, class_="dim"))
    return section("Accuracy against epsilon", element("div", figure, values, class_="columns"))


def accuracy_curve(curves: dict[str, Sequence[dict]], reference: float | None) -> Html:
    """Returns an SVG of accuracy against epsilon with Wilson bands.

    Args:
        curves: points {"epsilon", "epsilon_255", "accuracy", "interval"} by the name of the split, one or two.
        reference: the epsilon to mark, if any.
    """
    points = next(iter(curves.values()))
    largest = max(point["epsilon"] for point in points) or 1.0

    def x(epsilon):
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epsilon / largest

    def y(accuracy):
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * accuracy

    parts = []
    for tenth in range(0, 11, 2):
        line = y(tenth / 10)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{line:.1f}" y2="{line:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{line + 4:.1f}" text-anchor="end">{10 * tenth} %</text>')
    every = -(-len(points) // 8)  # labels that do not run into each other
    for point in points[::every]:
        for row, label in enumerate((f"{point['epsilon']:.4g}", f"{point['epsilon_255']:.3g}/255")):
            at = f'x="{x(point["epsilon"]):.1f}" y="{_HEIGHT - _BOTTOM + 17 + 14 * row}"'
            parts.append(f'<text {at} class="{"small" if row else ""}" text-anchor="middle">{label}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">epsilon on [-1, 1]</text>')
    if reference is not None:
        line = f'x1="{x(reference):.1f}" x2="{x(reference):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"'
        parts.append(f'<line class="reference" {line}/>')
    for number, (name, curve) in enumerate(curves.items()):
        parts.append(f'<g class="line{number}">')
        spans = [(point["epsilon"], point.get("interval") or [point["accuracy"]] * 2) for point in curve]
        border = [(e, high) for e, (_, high) in spans] + [(e, low) for e, (low, _) in reversed(spans)]
        outline = " ".join(f"{x(e):.1f},{y(a):.1f}" for e, a in border)
        line = " ".join(f"{x(point['epsilon']):.1f},{y(point['accuracy']):.1f}" for point in curve)
        parts.append(f'<polygon class="band" points="{outline}"/><polyline points="{line}"/>')
        for point in curve:
            label = f"{name}, epsilon {point['epsilon']:.4g}: {percent(point['accuracy'], point.get('interval'))}"
            at = f'cx="{x(point["epsilon"]):.1f}" cy="{y(point["accuracy"]):.1f}"'
            parts.append(f'<circle {at} r="3.5"><title>{html.escape(label)}</title></circle>')
        left = _LEFT + 10 + 150 * number
        parts.append(f'<line x1="{left}" x2="{left + 30}" y1="14" y2="14"/>')
        parts.append(f'<text x="{left + 38}" y="18">{html.escape(name)}</text></g>')
    ends = "; ".join(
        f"{name} from {percent(curve[0]['accuracy'])} to {percent(curve[-1]['accuracy'])}"
        for name, curve in curves.items()
    )
    description = f"Accuracy against epsilon from 0 to {largest:.4g}: {ends}. The table below has all values."
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(description)}">'
        f"{''.join(parts)}</svg>"
    )


def line_chart(title: str, lines: dict[str, Sequence[tuple[float, float]]], share: bool = False) -> Html:
    """Returns a figure with up to four lines against the training step, and a legend.

    Args:
        title: what is drawn.
        lines: points (step, value) of each line by its name, in the order of the steps; lines without points are left
            out, and with none at all the figure is empty.
        share: whether the values are shares, 0 to 1, to be shown in per cent.
    """
    lines = {name: _thinned(points) for name, points in lines.items() if points}
    if not lines:
        return Html("")
    steps = [step for points in lines.values() for step, _ in points]
    values = [value for points in lines.values() for _, value in points]
    first, last = min(steps), max(steps)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] if share else _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(step):
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - first) / max(last - first, 1)

    def y(value):
        return _HEIGHT - _BOTTOM + 20 - (_HEIGHT - _TOP - _BOTTOM + 40) * (value - low) / (high - low)

    def figure(value):
        return percent(value) if share else f"{value:.3g}"

    parts = []
    for tick in ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        text = f"{100 * tick:.0f} %" if share else f"{tick:g}"
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    for step, anchor in ((first, "start"), ((first + last) // 2, "middle"), (last, "end")):
        text = f"step {step:,}" if step == last else f"{step:,}"
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 40}" text-anchor="{anchor}">{text}</text>')
    items, words = [], []
    for number, (name, points) in enumerate(lines.items()):
        drawn = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        shown = [value for _, value in points]
        said = f"{name} from {figure(shown[0])} to {figure(shown[-1])}, between {figure(min(shown))} and "
        said += figure(max(shown))
        title_of_line = f"<title>{html.escape(said)}</title>"
        dot = f'<circle cx="{x(points[0][0]):.1f}" cy="{y(shown[0]):.1f}" r="3.5"/>' if len(points) == 1 else ""
        parts.append(f'<g class="line{number}">{title_of_line}<polyline points="{drawn}"/>{dot}</g>')
        sample = f'<g class="line{number}"><line x2="30" y1="4" y2="4"/></g>'
        swatch = Html(f'<svg viewBox="0 0 30 8" aria-hidden="true">{sample}</svg>')
        items.append(element("li", swatch, element("span", f"{name}: ", element("b", figure(shown[-1])))))
        words.append(said)
    description = f"{title} against the training step, {first:,} to {last:,}: {'; '.join(words)}."
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT - 10}" role="img" aria-label="{html.escape(description)}">'
        f"{''.join(parts)}</svg>"
    )
    return element(
        "figure", element("figcaption", escaped(title)), Html(drawing), element("ul", *items, class_="legend")
    )


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
