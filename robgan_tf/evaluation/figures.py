"""Tables, curves and images as HTML that needs no other file: what `report.py` puts on its page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.preprocessing import to_uint8

# The drawing area of a curve and the margins around it, in the units of its viewBox: about CSS pixels on a phone.
_WIDTH, _HEIGHT = 500, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 26, 30, 56

# Of the whole page: light and dark, wide and narrow.
STYLE = """
:root { color-scheme: light dark; --text: #1c2330; --dim: #5b6472; --page: #fff; --card: #f4f6f9; --rule: #d5dae2;
  --fail: #b3261e; --warn: #8a5a00; --pass: #1b6e3c; --test: #1f6fb8; --train: #b35a00; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --dim: #a0a9b6; --page: #14181f; --card: #1e242e; --rule: #38414e;
    --fail: #ff8a80; --warn: #f2b84b; --pass: #6fcf97; --test: #6db3f2; --train: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem; }
p { max-width: 48rem; } .dim, caption, figcaption { color: var(--dim); font-size: .9rem; }
.box { padding: .3rem 1rem; border-left: 5px solid var(--rule); background: var(--card); margin: 1rem 0; }
.box ul { padding-left: 1.2rem; }
.box.fail { border-color: var(--fail); } b.fail { color: var(--fail); }
.box.warn { border-color: var(--warn); } b.warn { color: var(--warn); }
.box.pass { border-color: var(--pass); } b.pass { color: var(--pass); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; }
.tile { padding: .7rem .9rem; background: var(--card); border-radius: 6px; }
.tile strong { display: block; font-size: 1.6rem; line-height: 1.3; }
.scroll { overflow-x: auto; margin: .75rem 0; } table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: 400;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th[scope=row] { text-align: left; } th[scope=col] { color: var(--dim); vertical-align: bottom; }
th[scope=col]:first-child { text-align: left; }
.wide td { text-align: left; white-space: normal; } .wide th { vertical-align: top; white-space: normal; }
.checks { padding: 0; list-style: none; } .checks li { padding: .35rem 0; border-bottom: 1px solid var(--rule); }
@media (max-width: 30rem) { th, td { padding: .2rem .3rem; } th[scope=row] { white-space: normal; } }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem; }
svg { display: block; width: 100%; max-width: 44rem; } svg text { font-size: 14px; fill: currentColor; }
svg text.small { font-size: 11px; fill: var(--dim); } svg line, svg polyline { fill: none; stroke-width: 2; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .reference { stroke: var(--dim); stroke-width: 1; stroke-dasharray: 2 3; }
.line0 { stroke: var(--test); fill: var(--test); } .line1 { stroke: var(--train); fill: var(--train); }
.line1 line, .line1 polyline { stroke-dasharray: 7 4; } svg .band { stroke: none; opacity: .18; }
svg g text { stroke: none; fill: currentColor; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: 6px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; }
.three img { width: 100%; image-rendering: pixelated; display: block; }
summary { cursor: pointer; } details { margin: .5rem 0; }
"""


class Html(str):
    """Text that is HTML already, so that `escaped` leaves it alone."""


def escaped(value) -> Html:
    """Returns a value as HTML text; None as a dash, floats with four digits."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("–")
    return Html(html.escape(f"{value:.4g}" if isinstance(value, float) else str(value)))


def element(tag: str, *content, **attributes) -> Html:
    """Returns <tag attributes>content</tag>, all text escaped; `class_` stands for class, `_` for a hyphen."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{written}>{''.join(map(escaped, content))}</{tag}>")


def percent(share: float | None, interval: Sequence[float] | None = None) -> Html:
    """Returns a share within 0 .. 1 in per cent, with its interval where there is one; None as a dash."""
    if share is None or share != share:
        return escaped(None)
    text = f"{100 * share:.1f}\u202f%"
    if interval:
        text += f" ({100 * interval[0]:.1f} – {100 * interval[1]:.1f})"
    return Html(text)


def shaded(share: float | None, content=None) -> Html:
    """Returns a table cell that is the more coloured the larger `share` (0 .. 1) is; it shows it, or `content`."""
    known = share is not None and share == share
    # At most half opaque, so that text in either colour scheme can be read on it.
    style = f"background:rgba(56,132,214,{0.5 * share:.3f})" if known else ""
    return element("td", percent(share) if content is None else content, style=style)


def table(caption: str, head: Sequence, rows: Sequence[Sequence]) -> Html:
    """Returns a table that scrolls sideways where it is too wide; the first cell of a row is its heading."""
    lines = [element("tr", *(element("th", cell, scope="col") for cell in head))]
    for first, *rest in rows:
        cells = (cell if str(escaped(cell)).startswith("<td") else element("td", cell) for cell in rest)
        lines.append(element("tr", element("th", first, scope="row"), *cells))
    return element(
        "div", element("table", element("caption", caption), *lines), class_="scroll", tabindex=0, role="region",
        aria_label=caption,
    )  # fmt: skip


def image(pixels: np.ndarray, description: str) -> Html:
    """Returns an <img> that holds its PNG. `pixels`: [H, W, C] in [-1, 1], C = 1 or 3."""
    png = tf.io.encode_png(to_uint8(pixels)).numpy()
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Html(f'<img src="{source}" alt="{html.escape(description)}">')


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
