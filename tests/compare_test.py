"""Accuracies side by side: what is printed, and what is refused."""

import copy
import json
import os
import pathlib
import subprocess
import sys

import pytest

from robgan_tf.compare import read, table

ROOT = pathlib.Path(__file__).resolve().parents[1]


def point(epsilon, accuracy):
    return {"epsilon": epsilon, "epsilon_255": 127.5 * epsilon, "accuracy": accuracy, "interval": [0.6, 0.8]}


REPORT = {
    "dataset": "digits",
    "split": "test",
    "examples": 360,
    "class_names": ["0", "1"],
    "norm": "linf",
    "reference_epsilon": 0.2,
    "clean": 0.98611,
    "clean_interval": [0.9678, 0.994],
    "worst_case": point(0.2, 0.76667),
    "curve": [point(0.0, 0.98611), point(0.1, 0.95), point(0.2, 0.76667)],
    "attacks": [{"name": "pgd", "label": "PGD-20 on class_loss"}],
    "checks": [{"name": "A", "status": "pass"}, {"name": "B", "status": "pass"}, {"name": "C", "status": "warn"}],
    "sanity_checked": True,
}


def changed(**changes):
    return {**copy.deepcopy(REPORT), **changes}


def test_the_table_holds_accuracies_intervals_attacks_and_checks():
    attacks = [{"name": "apgd", "label": "APGD"}, {"name": "square", "label": "Square"}]
    other = changed(
        worst_case=point(0.2, 0.5), attacks=attacks, sanity_checked=False, curve=[point(0.0, 0.9), point(0.2, 0.5)]
    )
    assert table({"runs/digits": REPORT, "b.json": other}) == [
        "digits, 360 test images, linf: accuracy in per cent (95 % interval)",
        "",
        "             clean               at 0.2 = 25.5/255   attacks               checks",
        "runs/digits  98.6 (96.8 - 99.4)  76.7 (60.0 - 80.0)  PGD-20 on class_loss  2 pass, 1 warn (C)",
        "b.json       98.6 (96.8 - 99.4)  50.0 (60.0 - 80.0)  APGD, Square          not made",
        "",
        "The attacks differ: a classifier that met fewer or weaker ones looks better than it is.",
    ]


def test_the_curves_stand_below_where_they_share_further_epsilons():
    lines = table({"a": REPORT, "b": changed(curve=[point(0.0, 1.0), point(0.1, 0.5), point(0.2, 0.25)])})
    assert lines[-3:] == ["epsilon  0      0.1   0.2", "a        98.6   95.0  76.7", "b        100.0  50.0  25.0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "cifar10"}, "the data set differs: digits and cifar10"),
        ({"examples": 300}, "the number of images differs: 360 and 300"),
        ({"class_names": ["0", "2"]}, "the classes differ"),
        ({"norm": "l2"}, "the norm differs: linf and l2"),
        ({"reference_epsilon": 0.1}, "epsilon differs: 0.2 and 0.1"),
    ],
)
def test_other_data_and_threat_models_are_refused(change, message):
    with pytest.raises(ValueError) as error:
        table({"a": REPORT, "b": changed(**change)})
    assert str(error.value) == f"a and b can't be compared, {message}"


def test_what_is_no_report_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "old.json").write_text(json.dumps({"dataset": "digits"}))
    (tmp_path / "good.json").write_text(json.dumps(REPORT))
    assert read(str(tmp_path / "good.json")) == REPORT
    for name, message in {
        "run": "has no robustness.json: evaluate it",
        "text.json": "is neither a run nor a report",
        "none.json": "there is no .*none.json: name a run, or a report that robgan evaluate --out wrote",
        "old.json": "of an older version: it has no split, examples,",
    }.items():
        with pytest.raises(ValueError, match=message):
            read(str(tmp_path / name))


def test_the_command_needs_two_and_no_tensorflow(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(REPORT))

    def run(*names):
        return subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "robgan_tf.compare", *names],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    one, two = run("a.json"), run("a.json", "a.json")
    assert one.returncode == 2 and "error: name two or more runs or reports" in one.stderr
    assert two.returncode == 0 and two.stdout.startswith("digits, 360 test images") and "tensorflow" not in two.stderr
