"""Line charts: what is drawn where, and what is said of it."""

import pytest

from robgan_tf.pages.charts import BOTTOM, LEFT, RIGHT, TOP, accuracy_chart, line_chart


def test_a_chart_says_in_words_what_it_shows_and_its_legend_has_the_last_values():
    chart = line_chart("Losses", {"<generator>": [(10, 2.0), (20, 1.0), (30, 1.5)], "other": []}, healthy="It falls.")
    assert (
        chart.description == "Losses against the training step, 10 to 30: <generator> from 2 to 1.5, between 1 and 2."
    )
    (line,) = chart.lines
    assert (line.name, line.last, chart.healthy) == ("<generator>", "1.5", "It falls.")
    assert [label for _, _, label, _ in chart.x_ticks] == ["10", "30"]


def test_shares_are_drawn_from_0_to_100_per_cent():
    chart = line_chart("Right", {"real": [(1, 0.0), (2, 1.0)]}, share=True)
    assert chart.lines[0].points == [(LEFT, BOTTOM), (RIGHT, TOP)]
    assert (chart.y_ticks[0], chart.y_ticks[-1]) == ((BOTTOM, "0 %"), (TOP, "100 %"))


@pytest.mark.parametrize("values, labels", [((1.9, 2.0), ("0", "2")), ((-3.0, -2.0), ("-3", "0"))])
def test_the_axis_has_0_so_that_a_small_change_looks_small(values, labels):
    chart = line_chart("Norm", {"one": list(enumerate(values))})
    assert (chart.y_ticks[0][1], chart.y_ticks[-1][1]) == labels


def test_long_runs_are_thinned_to_means_and_single_points_are_seen():
    (line,) = line_chart("Loss", {"long": [(step, float(step % 2)) for step in range(1, 10_001)]}).lines
    assert len(line.points) == 200 and len({y for _, y in line.points}) == 1
    (line,) = line_chart("Loss", {"short": [(7, 1.0)]}).lines
    assert len(line.dots) == 1


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-8, 1e9])
def test_a_line_that_never_changes_lies_within_the_chart(value):
    (line,) = line_chart("Loss", {"flat": [(1, value), (2, value)]}).lines
    assert all(TOP <= y <= BOTTOM for _, y in line.points)


def test_nothing_to_draw_is_nothing():
    assert line_chart("Loss", {"none": []}) is None


def test_the_accuracy_curve_is_drawn_to_scale():
    curve = [
        {"epsilon": e, "epsilon_255": 127.5 * e, "accuracy": a, "interval": [a, a]}
        for e, a in ((0, 1.0), (0.1, 0.5), (0.2, 0))
    ]
    chart = accuracy_chart({"curve": curve, "reference_epsilon": 0.1})
    middle = ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)
    assert chart.lines[0].points == [(LEFT, TOP), middle, (RIGHT, BOTTOM)]
    assert chart.reference == middle[0]
    assert [tick[2:] for tick in chart.x_ticks] == [("0", "0"), ("0.1", "12.8"), ("0.2", "25.5")]
