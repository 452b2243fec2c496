"""The folder of a run, without a run."""

import json

import PIL.Image
import pytest

from robgan_tf.run.directory import RunDirectory

ROBUSTNESS = {
    "dataset": "digits",
    "examples": 4,
    "clean": 0.75,
    "curve": [
        {"epsilon": 0.0, "epsilon_255": 0.0, "accuracy": 0.75, "interval": [0.3, 0.95]},
        {"epsilon": 0.1, "epsilon_255": 12.75, "accuracy": 0.5, "interval": [0.15, 0.85]},
    ],
    "reference_epsilon": 0.1,
    "worst_case": {"epsilon": 0.1, "epsilon_255": 12.75, "accuracy": 0.5},
    "checks": [{"name": "Gradients reach the images", "status": "fail", "message": "they do <not>"}],
}


@pytest.fixture
def robustness():
    """What `robustness.json` holds, as far as pages need it."""
    return ROBUSTNESS


@pytest.fixture
def run(tmp_path):
    """The folder of a run that is done."""
    run = RunDirectory(tmp_path / "my<run>")
    run.samples.mkdir(parents=True)
    run.config.write_text("LInf.epsilon = 0.1\nExperiment.data = @digits\n")
    lines = [
        {"stage": "cotraining", "step": 5, "images_seen": 50, "wall_seconds": 3.5, "real_accuracy": 0.5},
        {"stage": "finetuning", "step": 9, "images_seen": 90, "wall_seconds": 75.0, "loss": 1.5},
    ]
    run.metrics.write_text("".join(json.dumps({**line, "validation_accuracy": 0.625}) + "\n" for line in lines))
    run.robustness.write_text(json.dumps(ROBUSTNESS))
    run.robustness.with_suffix(".html").write_text("")
    machine = {"cpu": "EPYC", "cores": 2, "gpus": []}
    manifest = {
        "versions": {"python": "3.11.7"},
        "git_commit": "abc",
        "seed": 3,
        "machine": machine,
        "run": ["data: digits"],
    }
    run.manifest.write_text(json.dumps(manifest))
    for step in (500, 1000):
        PIL.Image.new("RGB", (8, 8)).save(run.samples / f"generated_{step:07d}.png")
    (run.exports / "2").mkdir(parents=True)
    (run.exports / "10").mkdir()
    return run
