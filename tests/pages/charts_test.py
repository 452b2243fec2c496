"""Charts as SVG."""

import re
import xml.etree.ElementTree as ET

import pytest

from robgan_tf.pages.charts import line_chart


def svg(chart):
    root = ET.fromstring(f"<root>{chart}</root>")
    return root.find(".//figure/svg")


def test_a_chart_says_in_words_what_it_shows_and_its_legend_has_the_last_values():
    chart = line_chart("Losses", {"<generator>": [(10, 2.0), (20, 1.0), (30, 1.5)], "other": []})
    label = svg(chart).get("aria-label")
    assert label == "Losses against the training step, 10 to 30: <generator> from 2 to 1.5, between 1 and 2."
    (item,) = re.findall("<li>.*?</li>", chart)
    assert "&lt;generator&gt;: <b>1.5</b>" in item and svg(chart).get("role") == "img"


def test_shares_are_drawn_from_0_to_100_per_cent():
    drawn = svg(line_chart("Right", {"real": [(1, 0.0), (2, 1.0)]}, share=True))
    (low, high) = drawn.find(".//polyline").get("points").split()
    lines = [float(line.get("y1")) for line in drawn.findall("line")]
    assert (float(low.split(",")[1]), float(high.split(",")[1])) == (max(lines), min(lines))
    assert "100 %" in [text.text for text in drawn.findall("text")]


def test_long_runs_are_thinned_to_means_and_single_points_are_seen():
    drawn = svg(line_chart("Loss", {"long": [(step, float(step % 2)) for step in range(1, 10_001)]}))
    points = [tuple(map(float, point.split(","))) for point in drawn.find(".//polyline").get("points").split()]
    assert len(points) == 200 and len({y for _, y in points}) == 1
    assert svg(line_chart("Loss", {"short": [(7, 1.0)]})).find(".//circle") is not None


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-8, 1e9])
def test_a_line_that_never_changes_can_be_drawn(value):
    assert svg(line_chart("Loss", {"flat": [(1, value), (2, value)]})) is not None


def test_nothing_to_draw_is_nothing():
    assert line_chart("Loss", {"none": []}) == ""
