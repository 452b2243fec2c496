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


def image_grid(
    images,
    columns: int,
    row_names: Sequence[str] | None = None,
    border: int = 2,
    column_names: Sequence[str] | None = None,
) -> PIL.Image.Image:
    """Lays images out row by row.

    Args:
        images: [N, H, W, C] in [-1, 1], C = 1 or 3.
        columns: images in a row; the last row may be shorter.
        row_names: a name to the left of each row, e.g. its class; may have several lines.
        border: pixels between images.
        column_names: a name above each column.
    """
    cells = to_uint8(images).numpy()
    cells = np.repeat(cells, 3, axis=-1) if cells.shape[-1] == 1 else cells
    factor = max(1, round(_READABLE / cells.shape[1]))
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = cells.shape[1] + border, cells.shape[2] + border
    rows = -(-len(cells) // columns)
    font = PIL.ImageFont.load_default()
    names = [] if row_names is None else list(row_names)
    margin = max((int(font.getlength(line)) for name in names for line in name.split("\n")), default=-8) + 8
    top = 16 if column_names else 0
    grid = PIL.Image.new("RGB", (margin + columns * width + border, top + rows * height + border), "white")
    for index, cell in enumerate(cells):
        corner = (margin + border + index % columns * width, top + border + index // columns * height)
        grid.paste(PIL.Image.fromarray(cell), corner)
    draw = PIL.ImageDraw.Draw(grid)
    for row, name in enumerate(names):
        middle = top + border + row * height + height // 2
        for number, line in enumerate(name.split("\n")):
            draw.text((4, middle - 6 * (name.count("\n") + 1) + 12 * number), line, fill="black", font=font)
    for column, name in enumerate(column_names or ()):
        draw.text((margin + border + column * width, 2), name, fill="black", font=font)
    return grid
