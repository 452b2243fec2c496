"""Jinja2 templates to pages of one file each: style inline, images embedded, no script, no request to anywhere."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import math
from collections.abc import Sequence

import jinja2
import numpy as np
import tensorflow as tf

from robgan_tf.data.preprocessing import to_uint8


def render(template: str, **parts) -> str:
    """Returns the page that `templates/<template>` makes of `parts`. Text is escaped, missing parts are empty."""
    return _environment().get_template(template).render(parts)


@functools.cache
def _environment() -> jinja2.Environment:
    # Reports that older versions wrote lack parts, so what is missing must not be an error.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters.update(
        percent=percent, interval=interval, number=number, value=value, duration=duration, short_path=short_path,
        png=png, data_uri=data_uri,
    )  # fmt: skip
    return environment


def _source(name: str) -> str:
    folder = "styles" if name.endswith(".css") else "templates"
    return (importlib.resources.files("robgan_tf.pages") / folder / name).read_text(encoding="utf-8")


def _is_number(share) -> bool:
    return isinstance(share, (int, float)) and math.isfinite(share)


def percent(share: float | None) -> str:
    """Returns a share within 0 .. 1 in per cent; a dash if there is none."""
    return f"{100 * share:.1f}\u202f%" if _is_number(share) else "–"


def interval(bounds: Sequence[float] | None) -> str:
    """Returns an interval of shares as "97.2 – 99.6", in per cent; nothing if there is none."""
    return f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f}" if bounds else ""


def number(figure: float | None) -> str:
    """Returns a number with four significant digits; a dash if there is none."""
    return f"{figure:.4g}" if _is_number(figure) else "–"


def value(setting) -> str:
    """Returns a setting for people: lists with commas, yes and no, and "none"."""
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, (list, tuple)):
        return ", ".join(map(value, setting)) or "none"
    if isinstance(setting, float):
        return number(setting)
    return str(setting) if setting or setting == 0 else "none"


def duration(seconds: float) -> str:
    """Returns seconds as "45 s", "7 min 6 s" or "26 h 3 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def short_path(path: str) -> str:
    """Returns the end of an absolute path, which means something on other machines too: run, "export" and version."""
    return "/".join(path.rstrip("/").split("/")[-3:]) if path.startswith("/") else path


def png(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of pixels [H, W, C] in [-1, 1], C = 1 or 3."""
    return tf.io.encode_png(to_uint8(pixels)).numpy()


def data_uri(image: bytes) -> str:
    """Returns a PNG file as an address that holds the image itself."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
