"""docs/your_own_defence.md as it stands: parts of one's own, from outside of the package, are built and run."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import gin
import pytest

from robgan_tf import command_line
from robgan_tf.keras2 import keras

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_defence.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w*\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = [
    line for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
PARTS = ("network", "attack", "loss", "data", "penalty", "metric")
# Behind the page's own: a minute for each run.
SHORT = [
    "Generator.base_width = 4",
    "Discriminator.base_width = 4",
    "CoTraining.epochs = 0.5",
    "FineTuning.epochs = 2",
    "RobustnessEvaluation.epsilons = (0.0, 0.1)",
    "RobustnessEvaluation.test_examples = 40",
    "RobustnessEvaluation.checks = None",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder that holds the files of the page, and nothing else."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    gin.clear_config()


def build(folder, part):
    gin.clear_config()
    params = [f"digits.data_dir = '{folder / 'data'}'", *SHORT]
    return command_line.build_experiment([f"{part}.gin"], params)


def test_the_page_has_two_files_for_each_part_and_each_gin_file_begins_with_its_import():
    assert set(FILES) == {name for part in PARTS for name in (f"my_{part}.py", f"{part}.gin")} | {"save_mine.py"}
    for part in PARTS:
        assert FILES[f"{part}.gin"].startswith(f"import my_{part}\n") and FILES[f"{part}.gin"].count("\n") <= 8


def test_parts_of_ones_own_are_what_is_built(folder):
    network = build(folder, "network")
    assert (
        isinstance(network.classifier.network, keras.Sequential) and network.classifier.network.layers[0].filters == 24
    )
    attack = build(folder, "attack")
    assert [type(one).__name__ for one in attack.evaluation.attacks] == ["PGD", "ShrinkingSteps"]
    assert type(attack.finetuning.attacker).__name__ == "ShrinkingSteps"
    losses = build(folder, "loss").cotraining.objectives
    assert losses.discriminator.keywords["source_loss"].__name__ == "least_squares"
    assert losses.generator.keywords["source_loss"].__name__ == "least_squares_generator"
    data = build(folder, "data").data
    assert (data.name, len(data.train), len(data.validation), len(data.test)) == ("my digits", 1397, 100, 300)
    assert build(folder, "penalty").cotraining.penalty.weight == 0.001
    assert build(folder, "metric").training_curves.every == 100


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_the_page_runs_in_order(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "python"
        if "robgan_tf.train" in arguments or "robgan_tf.evaluate" in arguments:
            arguments += [f"--gin_param={binding}" for binding in SHORT]
        done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    rows = done.stdout.splitlines()[3:6]
    assert [row.split()[0] for row in rows] == ["runs/network", "runs/penalty", "mine.json"], done.stdout
    assert all("PGD-20 on class_loss" in row for row in rows)
    metrics = [json.loads(line) for line in (folder / "runs/metric/metrics.jsonl").read_text().splitlines()]
    assert all(0.1 <= line["classifier_confidence"] <= 1 for line in metrics if "classifier_confidence" in line)
    assert any("classifier_confidence" in line for line in metrics)
    report = (folder / "runs/metric/report.html").read_text()
    assert "Confidence" in report and "a classifier that holds under attack is rarely sure" in report
    for part in PARTS:
        assert (folder / "runs" / part / "export" / "1" / "saved_model.pb").exists()
    attacks = json.loads((folder / "runs/attack/robustness.json").read_text())["attacks"]
    assert [attack["name"] for attack in attacks] == ["pgd", "shrinking"]
    other = subprocess.run(
        [sys.executable, "-m", "robgan_tf.compare", "runs/network", "runs/data"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert other.returncode == 2
    assert (
        other.stderr
        == "error: runs/network and runs/data can't be compared, the data set differs: digits and my digits\n"
    )
