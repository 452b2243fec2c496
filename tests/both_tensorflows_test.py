"""Runs and exports go from one TensorFlow to the other and back: 2.15, and 2.16 to 2.21 with tf-keras.

Three trainings, each goes on from a checkpoint of the one before as if that had been killed behind it: this TensorFlow
alone; the other from the middle of co-training; this one again from the middle of fine-tuning.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
OTHER = os.environ.get("ROBGAN_OTHER_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER, reason="ROBGAN_OTHER_PYTHON names no Python with the other TensorFlow"),
]
PYTHONS = {"this": sys.executable, "other": OTHER}
SMALL = (
    "Generator.base_width=4",
    "Discriminator.base_width=4",
    "CoTraining.epochs=1",  # 13 steps
    "CoTraining.average_decay=0.9",
    "FineTuning.epochs=0.5",  # 20 steps
    "Experiment.sample_every=100",
    "Experiment.validate_every=10",
    "Upkeep.log_every=1",
    "Upkeep.checkpoint_every=5",
    "RobustnessEvaluation.test_examples=60",
    "RobustnessEvaluation.epsilons=(0.0, 0.2)",
    "RobustnessEvaluation.checks=None",
)
HANDED_OVER = {"cotraining": 10, "finetuning": 15}  # steps done by then


def command(python, module, *arguments):
    """Runs a command; a Python that fails says why in the test's own message."""
    params = [f"--gin_param={param}" for param in SMALL]
    finished = subprocess.run(
        [PYTHONS[python], "-m", f"robgan_tf.{module}", "--gin_file=gin/digits.gin", *params, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=1500,  # it takes half a minute; machines may be busy
    )
    assert finished.returncode == 0, f"{module} by {python}: {finished.stderr[-3000:]}"


def go_on_from(run, folder, stage):
    """Copies a run and removes all that came behind the checkpoint of the hand-over."""
    shutil.copytree(run, folder)
    later = ["export", "robustness.json", *(["checkpoints/finetuning*"] if stage == "cotraining" else [])]
    for path in [path for pattern in later for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.glob(f"checkpoints/{stage}*/*"):
        if int(path.name) > HANDED_OVER[stage]:
            shutil.rmtree(path)
    assert (folder / "checkpoints" / stage / f"{HANDED_OVER[stage]:08d}").is_dir()
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    command("this", "train", f"--run_dir={folder}", "--stages=cotrain,finetune")
    return folder


@pytest.fixture(scope="module")
def there(alone, tmp_path_factory):
    folder = go_on_from(alone, tmp_path_factory.mktemp("there") / "run", "cotraining")
    command("other", "train", f"--run_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def back(there, tmp_path_factory):
    folder = go_on_from(there, tmp_path_factory.mktemp("back") / "run", "finetuning")
    command("this", "train", f"--run_dir={folder}")
    return folder


def metrics(folder, stage):
    """The entries of a stage, a list for each step that has one."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    entries = [line for line in lines if line["stage"] == stage and any(name.endswith("loss") for name in line)]
    return {line["step"]: {name: line[name] for name in line if name.endswith("loss")} for line in entries}


@pytest.mark.parametrize("stage, before, after", [("cotraining", "alone", "there"), ("finetuning", "there", "back")])
def test_training_goes_on_as_it_would_have_in_the_other_tensorflow(stage, before, after, request):
    folders = [request.getfixturevalue(name) for name in (before, after)]
    expected, found = (metrics(folder, stage) for folder in folders)
    first = HANDED_OVER[stage] + 1
    assert list(expected) == list(found) == list(range(1, max(expected) + 1)) and max(expected) > first + 1
    for step in range(1, first):  # done before the hand-over
        assert found[step] == expected[step]
    # The first step has equal weights, moments of the optimizers, batch, noise and attack: sums in another order, some
    # 1e-6 of a loss, or equal. Later ReLUs and sign steps of the attack fall to either side, and the difference grows.
    assert found[first] == pytest.approx(expected[first], rel=1e-4)
    for step in range(first + 1, max(expected) + 1):
        assert found[step] == pytest.approx(expected[step], rel=0.01)
    versions = [json.loads((folder / "manifest.json").read_text())["versions"]["tensorflow"] for folder in folders]
    assert versions[0] != versions[1], "ROBGAN_OTHER_PYTHON has the same TensorFlow as this one"


@pytest.mark.parametrize("made, maker, evaluator", [("there", "other", "this"), ("back", "this", "other")])
def test_the_export_of_one_is_evaluated_by_the_other_with_equal_figures(made, maker, evaluator, request, tmp_path):
    run, out = request.getfixturevalue(made), tmp_path / "report.json"
    command(evaluator, "evaluate", f"--saved_model={run / 'export' / '1'}", f"--out={out}")
    expected, found = (json.loads(path.read_text()) for path in (run / "robustness.json", out))
    assert found["clean"] == pytest.approx(expected["clean"], abs=1e-9), f"made by {maker}"
    assert len(found["curve"]) == len(expected["curve"]) == 2
    # An attack may end on the other side of a decision by rounding: 1 of 60 images.
    for theirs, ours in zip(expected["curve"], found["curve"]):
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1.01 / 60)
