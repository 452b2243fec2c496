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
# Height of letters and of a line of text, in pixels.
_LETTER, _LINE = 14, 18


def image_grid(
    images,
    columns: int,
    row_names: Sequence[str] | None = None,
    border: int = 2,
    column_names: Sequence[str] | None = None,
    title: str = "",
) -> PIL.Image.Image:
    """Lays images out row by row.

    Args:
        images: [N, H, W, C] in [-1, 1], C = 1 or 3.
        columns: images in a row; the last row may be shorter.
        row_names: a name to the left of each row, e.g. its class; may have several lines.
        border: pixels between images.
        column_names: a name above each column.
        title: text above the grid; may have several lines.
    """
    cells = to_uint8(images).numpy()
    cells = np.repeat(cells, 3, axis=-1) if cells.shape[-1] == 1 else cells
    factor = max(1, round(_READABLE / cells.shape[1]))
    cells = cells.repeat(factor, axis=1).repeat(factor, axis=2)
    names = [] if row_names is None else [name.split("\n") for name in row_names]
    heading = title.split("\n") if title else []
    text = max(map(len, names), default=0) * _LINE
    height, width = max(cells.shape[1], text) + border, cells.shape[2] + border
    rows = -(-len(cells) // columns)
    font = PIL.ImageFont.load_default(_LETTER)

    def longest(lines):
        return max((int(font.getlength(line)) for line in lines), default=-8) + 8

    if column_names:
        width = max(width, longest(column_names) + border)
    margin = longest([line for name in names for line in name])
    top = _LINE * (len(heading) + bool(column_names))
    size = max(margin + columns * width + border, longest(heading) + 4), top + rows * height + border
    grid = PIL.Image.new("RGB", size, "white")
    for index, cell in enumerate(cells):
        corner = (margin + border + index % columns * width, top + border + index // columns * height)
        grid.paste(PIL.Image.fromarray(cell), corner)
    draw = PIL.ImageDraw.Draw(grid)
    for number, line in enumerate(heading):
        draw.text((4, _LINE * number), line, fill="black", font=font)
    for row, lines in enumerate(names):
        begin = top + border + row * height + (height - _LINE * len(lines)) // 2
        for number, line in enumerate(lines):
            draw.text((4, begin + _LINE * number), line, fill="black", font=font)
    for column, name in enumerate(column_names or ()):
        draw.text((margin + border + column * width, top - _LINE), name, fill="black", font=font)
    return grid
