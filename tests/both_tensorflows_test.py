"""A run, its checkpoints and its export go from one TensorFlow to the other: 2.15, and 2.16 to 2.21 with tf-keras."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
OTHER = os.environ.get("ROBGAN_OTHER_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER, reason="ROBGAN_OTHER_PYTHON names no Python with the other TensorFlow"),
]
SMALL = (
    "Generator.base_width=4",
    "Discriminator.base_width=4",
    "CoTraining.epochs=0.5",
    "FineTuning.epochs=1",
    "CoTraining.average_decay=0.9",
    "Experiment.sample_every=100",
    "Experiment.validate_every=20",
    "Upkeep.log_every=1",
    "RobustnessEvaluation.test_examples=60",
    "RobustnessEvaluation.epsilons=(0.0, 0.2)",
)
PYTHONS = {"this": sys.executable, "other": OTHER}


def command(python, module, *arguments):
    finished = subprocess.run(
        [PYTHONS[python], "-m", f"robgan_tf.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]


def train(python, folder, *flags):
    params = [f"--gin_param={param}" for param in SMALL]
    command(python, "train", "--gin_file=gin/digits.gin", *params, f"--run_dir={folder}", *flags)


def metrics(folder, stage):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that one TensorFlow alone makes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("this", folder)
    return folder


@pytest.fixture(scope="module", params=[("this", "other"), ("other", "this")], ids="_then_".join)
def handed_over(request, tmp_path_factory):
    """A run that one begins and the other ends."""
    folder = tmp_path_factory.mktemp("handed_over") / "run"
    begins, ends = request.param
    train(begins, folder, "--stages=cotrain")
    train(ends, folder)
    return folder


@pytest.mark.parametrize("stage", ["cotraining", "finetuning"])
def test_the_metrics_are_those_of_one_tensorflow_alone_but_for_rounding(whole, handed_over, stage):
    expected, found = metrics(whole, stage), metrics(handed_over, stage)
    assert len(expected) == len(found) > 3
    # The first step starts from equal weights. Another oneDNN adds in another order: some 1e-6 of a loss.
    for name in ("loss", "discriminator_loss", "generator_loss"):
        if name in expected[0] and stage == "cotraining":
            assert found[0][name] == pytest.approx(expected[0][name], rel=1e-4)
    # Later rounding grows from step to step, as ReLUs and sign steps of the attack fall to either side.
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (expected, found)]
    if losses[0]:
        assert np.median(np.abs(np.subtract(*losses))) < 0.1


def test_the_export_of_one_is_evaluated_by_the_other_with_equal_figures(handed_over, tmp_path):
    reports = []
    for python in PYTHONS:
        out = tmp_path / f"{python}.json"
        params = [f"--gin_param={param}" for param in SMALL]
        model = f"--saved_model={handed_over}/export/1"
        command(python, "evaluate", model, "--gin_file=gin/digits.gin", *params, f"--out={out}")
        reports.append(json.loads(out.read_text()))
    one, other = reports
    assert one["clean"] == pytest.approx(other["clean"], abs=1e-9)
    # An attack may end on the other side of a decision by rounding: 1 of 60 images.
    for mine, theirs in zip(one["curve"], other["curve"]):
        assert mine["accuracy"] == pytest.approx(theirs["accuracy"], abs=1.01 / 60)
