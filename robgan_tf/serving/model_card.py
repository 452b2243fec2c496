"""What an exported version says of itself to people: `MODEL_CARD.md`, made of its manifest."""

from __future__ import annotations

import functools
import importlib.resources
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import jinja2

from robgan_tf.data.files import write_text

FILE = "MODEL_CARD.md"


def write(directory: str | os.PathLike, manifest: Mapping) -> None:
    """Writes the card of an exported version into its folder.

    Args:
        directory: the version's folder.
        manifest: what its `manifest.json` holds; what is missing in it is "not stated" or "not measured".
    """
    write_text(pathlib.Path(directory) / FILE, card(manifest))


def card(manifest: Mapping) -> str:
    """Returns the text of the card, in Markdown."""
    text = _template().render(manifest)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(  # Markdown, not HTML: nothing is escaped
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    environment.filters.update(percent=_percent, interval=_interval)
    source = importlib.resources.files("robgan_tf.serving") / "templates" / "model_card.md"
    return environment.from_string(source.read_text(encoding="utf-8"))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{100 * bounds[0]:.1f} - {100 * bounds[1]:.1f}" if bounds else ""
