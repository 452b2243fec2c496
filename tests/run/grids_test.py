"""Grids of images."""

import numpy as np

from robgan_tf.run.grids import image_grid


def test_images_lie_row_by_row_in_their_colours():
    images = np.stack([np.full([48, 48, 3], value, np.float32) for value in (-1.0, 1.0, 0.0)])
    grid = np.asarray(image_grid(images, columns=2, border=2))
    assert grid.shape == (2 * 50 + 2, 2 * 50 + 2, 3)
    assert grid[20, 20].tolist() == [0, 0, 0]
    assert grid[20, 70].tolist() == [255, 255, 255]
    assert grid[70, 20].tolist() == [128, 128, 128]


def test_small_grey_images_are_enlarged_without_smoothing_and_rows_have_names():
    images = np.where(np.arange(16).reshape(1, 4, 4, 1) % 2, 1.0, -1.0).astype(np.float32)
    plain = np.asarray(image_grid(images, columns=1))
    assert plain.shape == (52, 52, 3) and set(np.unique(plain[2:50, 2:50])) == {0, 255}
    named = np.asarray(image_grid(images, columns=1, row_names=["seven"]))
    assert named.shape[1] > plain.shape[1]
    # The name is written in the margin: some of it is dark.
    assert named[:, : named.shape[1] - plain.shape[1]].min() < 50


def test_names_of_several_lines_and_titles_have_room():
    images = np.full([2, 48, 48, 1], -1, np.float32)
    plain = np.asarray(image_grid(images, columns=1))
    name = "true class: 3\nclean: 3 (98 %)\nattacked: 5 (61 %)"
    grid = np.asarray(
        image_grid(images, 1, [name, name], column_names=["clean"], title="An attack that has a long name")
    )
    assert grid.shape[1] > 200  # as wide as the title
    assert grid.shape[0] > plain.shape[0] + 36  # a line for the title, one for the name of the column
    # No letter in the last line of pixels of a row, where the next one's letters begin.
    margin = grid[36:, :100]
    assert margin[:54].min() < 100 and margin[55:57].min() == 255
