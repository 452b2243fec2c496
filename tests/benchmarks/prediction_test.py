"""The comparison of predictions with real runs: which steps count, and that the command goes through."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from prediction import CONFIGURATIONS, Comparison, Entry, read_entries, seconds_of_a_step

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_steps_count_between_the_first_entry_and_the_last_but_one():
    entries = [Entry(10, 30.0, 50.0), Entry(20, 32.0, 53.0), Entry(30, 35.0, 56.0), Entry(40, 90.0, 150.0)]
    assert seconds_of_a_step(entries) == (5.0 / 20, 6.0 / 20)


def test_an_entry_that_is_not_complete_is_left_for_later(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert read_entries(metrics) == []
    metrics.write_text('{"stage": "cotraining", "step": 2, "wall_seconds": 1.5, "x": 0}\n{"stage": "cotr')
    assert read_entries(metrics) == [("cotraining", 2, 1.5)]


def test_the_error_is_the_median_of_that_of_each_round():
    found = [((2.0, 3.0), (1.0, 2.0)), ((1.0, 1.0), (2.0, 2.0)), ((3.0, 2.0), (4.0, 1.0))]
    rounds = [
        {"predicted": dict(zip(("seconds", "cpu"), predicted)), **dict(zip(("seconds", "cpu"), real))}
        for predicted, real in found
    ]
    comparison = Comparison("cotraining", ["gin/digits.gin"], [], steps=5, rounds=rounds)
    assert (comparison.error("seconds"), comparison.error("cpu")) == (-0.25, 0.5)  # of 1, -1/2, -1/4; 1/2, -1/2, 1
    assert comparison.row("digits") == "| digits | 2 | 2 | -25% | 2 | 2 | +50% |"
    written = comparison.to_json()
    assert written["error_by_cpu"] == 0.5 and written["rounds"] == rounds and written["steps"] == 5


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_files_of_the_configurations_are_there(name):
    stage, (files, _) = CONFIGURATIONS[name]
    assert stage in ("cotraining", "finetuning") and all((ROOT / file).exists() for file in files)


@pytest.mark.slow
def test_the_command_predicts_and_trains(tmp_path):
    out = tmp_path / "prediction.json"
    command = [sys.executable, "benchmarks/prediction.py", f"--gin_file={ROOT}/gin/digits.gin", f"--out={out}"]
    command += [f"--gin_param={player}.base_width = 2" for player in ("Generator", "Discriminator")]
    command += [f"--gin_param=digits.data_dir = '{tmp_path}/data'", "--rounds=1", "--seconds=0.5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    results = json.loads(out.read_text())["results"]
    assert list(results) == ["cotraining", "finetuning"]
    for row in results.values():
        (only,) = row["rounds"]
        assert row["error_by_seconds"] == pytest.approx(only["predicted"]["seconds"] / only["seconds"] - 1)
        assert row["error_by_cpu"] == pytest.approx(only["predicted"]["cpu"] / only["cpu"] - 1)
        assert row["steps"] % 5 == 0 and 0 < only["seconds"] < 60
