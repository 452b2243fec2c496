"""Declarations of metrics, and the charts that are made of them."""

import json

import pytest

from robgan_tf.run import metrics
from robgan_tf.run.metrics import SHARE, Metric, charts, declarations, declare, declare_of_player, described


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch):
    monkeypatch.setattr(metrics, "_declared", {})


def keep(folder, names, kept=()):
    (folder / metrics.FILE).write_text(json.dumps(declarations(names, dict(kept))))
    return metrics.read_declarations(folder)


def test_a_declaration_is_all_that_a_new_metric_needs(tmp_path):
    declare(Metric("flips", "flipped labels", "Label noise", group="health", unit=SHARE, tag="flips_seen"))
    assert described("flips").tensorboard == "1_health/flips_seen"
    assert described("flips").text(0.125) == "12 %"
    kept = keep(tmp_path, ["flips"])
    metrics._declared.clear()  # as in a process that makes a page
    (chart,) = charts([{"stage": "cotraining", "step": 5, "flips": 0.5}], tmp_path)
    assert (chart.title, chart.group, chart.unit) == ("Label noise", "health", SHARE)
    assert chart.lines == [(kept["flips"], [(5, 0.5)])]


def test_charts_join_metrics_of_one_title_and_come_in_the_order_of_groups(tmp_path):
    declare(Metric("memory", "process", "Memory", unit="MiB"))
    declare_of_player("discriminator", Metric("loss", "", "Loss"))
    declare_of_player("generator", Metric("loss", "", "Loss"))
    declare(Metric("seen", "train accuracy", "Accuracy", group="health", unit=SHARE))
    records = [
        {"step": 1, "images_seen": 8, "wall_seconds": 0.5, "memory": 3.0, "discriminator_loss": 1.0},
        {"step": 2, "images_seen": 16, "wall_seconds": 0.7, "generator_loss": 4.0, "seen": 0.5},
    ]
    keep(tmp_path, {name for record in records for name in record if name not in metrics.NOT_METRICS})
    found = charts(records, tmp_path)
    assert [chart.title for chart in found] == ["Accuracy", "Loss", "Memory"]
    assert [(metric.label, points) for metric, points in found[1].lines] == [
        ("generator", [(2, 4.0)]),
        ("discriminator", [(1, 1.0)]),
    ]


def test_a_run_that_kept_no_declarations_is_shown_by_the_names_of_its_metrics(tmp_path):
    records = [
        {
            "stage": "cotraining",
            "step": 1,
            "class_accuracy": 0.5,
            "validation_accuracy": 0.25,
            "generator_loss": 2.0,
            "discriminator_loss": 1.0,
            "images_per_second": 10.0,
        }
    ]
    shown = {
        chart.title: (chart.unit, [metric.label for metric, _ in chart.lines]) for chart in charts(records, tmp_path)
    }
    assert shown == {
        "Accuracy": (SHARE, ["class accuracy", "validation accuracy"]),
        "Loss": ("", ["generator", "discriminator"]),
        "Images per second": ("", ["images per second"]),
    }


def test_what_a_folder_holds_stays_where_this_process_does_not_know_it(tmp_path):
    declare(Metric("old", "as it was", "Chart"))
    kept = keep(tmp_path, ["old"])
    metrics._declared.clear()
    declare(Metric("new", "a new one", "Chart"))
    found = keep(tmp_path, ["new"], kept)
    assert {name: metric.label for name, metric in found.items()} == {"new": "a new one", "old": "as it was"}


def test_two_meanings_of_one_name_are_refused():
    declare(Metric("loss", "loss", "Loss"))
    declare(Metric("loss", "loss", "Loss"))
    with pytest.raises(ValueError, match="'loss' is declared already"):
        declare(Metric("loss", "something else", "Loss"))


def test_an_unknown_group_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="of odd must be one of health, generator, .*; got 'oddities'"):
        Metric("odd", "odd", "Odd", group="oddities")


def test_values_have_their_units():
    assert Metric("speed", "", "", unit="images/s").text(312.4) == "312 images/s"
    assert Metric("loss", "", "").text(2.5) == "2.5"
