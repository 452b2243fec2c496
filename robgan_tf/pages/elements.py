"""Texts, tables and images as HTML that needs no other file, and the page around them."""

from __future__ import annotations

import base64
import html
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from robgan_tf.data.preprocessing import to_uint8

# Nothing may be loaded from anywhere, and no script may run, whatever a class is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Of the whole page: light and dark, wide and narrow.
STYLE = """
:root { color-scheme: light dark; --text: #1c2330; --dim: #5b6472; --page: #fff; --card: #f4f6f9; --rule: #d5dae2;
  --fail: #b3261e; --warn: #8a5a00; --pass: #1b6e3c; --test: #1f6fb8; --train: #b35a00; --third: #1b7f5c;
  --fourth: #8a3ea8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --dim: #a0a9b6; --page: #14181f; --card: #1e242e; --rule: #38414e;
    --fail: #ff8a80; --warn: #f2b84b; --pass: #6fcf97; --test: #6db3f2; --train: #f0a35e; --third: #66d0a5;
    --fourth: #d39af0; } }
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
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tile { padding: .7rem .9rem; background: var(--card); border-radius: 6px; }
.tile strong { display: block; font-size: 1.6rem; line-height: 1.3; }
.scroll { overflow-x: auto; margin: .75rem 0; } table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: 400;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th[scope=row] { text-align: left; } th[scope=col] { color: var(--dim); vertical-align: bottom; }
th[scope=col]:first-child { text-align: left; }
a { color: var(--test); }
.wide td { text-align: left; white-space: normal; } .wide th { vertical-align: top; white-space: normal; }
.checks { padding: 0; list-style: none; } .checks li { padding: .35rem 0; border-bottom: 1px solid var(--rule); }
@media (max-width: 30rem) { th, td { padding: .2rem .3rem; } th[scope=row] { white-space: normal; } }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem; }
svg { display: block; width: 100%; max-width: 44rem; } svg text { font-size: 14px; fill: currentColor; }
svg text.small { font-size: 11px; fill: var(--dim); }
@media (max-width: 30rem) { svg text { font-size: 16px; } svg text.small { font-size: 12.5px; } }
svg line, svg polyline { fill: none; stroke-width: 2; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .reference { stroke: var(--dim); stroke-width: 1; stroke-dasharray: 2 3; }
.line0 { stroke: var(--test); fill: var(--test); } .line1 { stroke: var(--train); fill: var(--train); }
.line2 { stroke: var(--third); fill: var(--third); } .line3 { stroke: var(--fourth); fill: var(--fourth); }
.line1 line, .line1 polyline { stroke-dasharray: 7 4; } .line2 line, .line2 polyline { stroke-dasharray: 2 3; }
.line3 line, .line3 polyline { stroke-dasharray: 10 3 2 3; } svg .band { stroke: none; opacity: .18; }
svg g text { stroke: none; fill: currentColor; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: 6px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; }
.three img { width: 100%; image-rendering: pixelated; display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem 2rem; }
.charts figure { padding: 0; background: none; } .charts figcaption { color: var(--text); font-weight: 600; }
.legend { margin: .2rem 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; }
.legend li { font-size: .9rem; display: flex; align-items: center; gap: .4rem; }
.legend svg { width: 30px; height: 8px; flex: none; }
.grids img { max-width: 100%; display: block; margin-bottom: .4rem; }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  align-items: start; }
pre { overflow-x: auto; padding: .7rem .9rem; background: var(--card); border-radius: 6px; font-size: .85rem; }
code { font-size: .9em; }
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
    return embedded(tf.io.encode_png(to_uint8(pixels)).numpy(), description)


def embedded(png: bytes, description: str) -> Html:
    """Returns an <img> that holds the bytes of a PNG file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Html(f'<img src="{source}" alt="{html.escape(description)}">')


def section(title: str, *parts) -> Html:
    """Returns a section with its heading."""
    return element("section", element("h2", title), *parts)


def box(status: str, words: str, items: Sequence = ()) -> Html:
    """Returns a box with a mark of its `status`, "fail", "warn", "pass" or "", a sentence and a list."""
    content = [element("p", element("b", words, class_=status))]
    content += [element("ul", *(element("li", *item) for item in items))] if items else []
    return element("div", *content, class_=f"box {status}")


def tile(number, words) -> Html:
    """Returns a number that is to be seen at once, with words to it."""
    return element("div", element("strong", number), words, class_="tile")


def page(title: str, parts: Sequence) -> str:
    """Returns a whole page of `parts`: inline style, no script, no request to anywhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n"
    )


def write_page(path: str | os.PathLike, text: str):
    """Writes a page aside and renames it: it is never seen half-written."""
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
