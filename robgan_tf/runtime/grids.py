"""Grids of images, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from robgan_tf.data.preprocessing import to_uint8

# Smaller images are enlarged to about this many pixels, without smoothing.
_READABLE = 48


def image_grid(images, columns: int, row_names: Sequence[str] | None = None, border: int = 2) -> PIL.Image.Image:
    """Lays images out row by row.

    Args:
        images: [N, H, W, C] in [-1, 1], C = 1 or 3.
        columns: images in a row; the last row may be shorter.
        row_names: a name to the left of each row, e.g. its class.
        border: pixels between images.
    """
    cells = to_uint8(images).numpy()
    cells = np.repeat(cells, 3, axis=-1) if cells.shape[-1] == 1 else cells
    factor = max(1, round(_READABLE / cells.shape[1]))
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = cells.shape[1] + border, cells.shape[2] + border
    rows = -(-len(cells) // columns)
    font = PIL.ImageFont.load_default()
    names = [] if row_names is None else list(row_names)
    margin = max((int(font.getlength(name)) for name in names), default=-8) + 8
    grid = PIL.Image.new("RGB", (margin + columns * width + border, rows * height + border), "white")
    for index, cell in enumerate(cells):
        corner = (margin + border + index % columns * width, border + index // columns * height)
        grid.paste(PIL.Image.fromarray(cell), corner)
    draw = PIL.ImageDraw.Draw(grid)
    for row, name in enumerate(names):
        draw.text((4, border + row * height + height // 2 - 6), name, fill="black", font=font)
    return grid
