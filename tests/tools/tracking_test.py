"""A run's metrics in MLflow and in Weights & Biases, offline; in an environment that has them."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "digits"
    folder.mkdir(parents=True)
    lines = [
        {"stage": stage, "step": step, "images_seen": 32 * step, "wall_seconds": step / 10, "loss": 1 / step}
        for stage in ("cotraining", "finetuning")
        for step in (50, 100)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "config.gin").write_text("# Parameters:\nLInf.epsilon = 0.2\ncotraining/Attacker.steps = 5\n")
    (folder / "robustness.json").write_text(json.dumps({"clean": 0.98, "worst_case": {"accuracy": 0.76}}))
    return folder


def call(tool, *arguments):
    environment = {**os.environ, "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, str(TOOLS / tool), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("tool", ["to_mlflow.py", "to_wandb.py"])
def test_a_folder_that_is_no_run_is_one_line(tool, tmp_path):
    done = call(tool, f"--run_dir={tmp_path}")
    assert done.returncode == 2 and "holds no metrics.jsonl: give the folder of a run" in done.stderr


def test_mlflow_gets_metrics_by_stage_and_step_and_only_what_is_new(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    uri = f"file:{tmp_path / 'mlruns'}"
    for new in (4, 0):
        done = call("to_mlflow.py", f"--run_dir={run_dir}", f"--uri={uri}")
        assert done.returncode == 0 and done.stdout.startswith(f"{new} new lines"), done.stderr
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("robgan_tf").experiment_id])
    assert run.data.params == {"LInf.epsilon": "0.2", "cotraining/Attacker.steps": "5"}
    history = client.get_metric_history(run.info.run_id, "finetuning/loss")
    assert [(one.step, one.value) for one in history] == [(50, 0.02), (100, 0.01)]
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["robustness.json"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="Weights & Biases is not installed")
def test_wandb_gets_an_offline_record(run_dir, tmp_path):
    done = call("to_wandb.py", f"--run_dir={run_dir}", f"--folder={tmp_path}")
    assert done.returncode == 0 and done.stdout.startswith("4 lines of"), done.stderr
    (record,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    written = record.read_bytes()
    for word in (b"cotraining/loss", b"finetuning/step", b"LInf.epsilon", b"under_attack"):
        assert word in written, word
