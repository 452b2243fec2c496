"""Hands the metrics of a run to MLflow: from its `metrics.jsonl`, offline or to a server.

    pip install mlflow-skinny
    python tools/to_mlflow.py --run_dir=runs/digits --uri=file:mlruns
    MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri=file:mlruns    # of the package mlflow

While a run goes on, or at its end; the same again adds what is new. Metrics are named <stage>/<metric>, by step; the
parameters are the bindings of config.gin, and the artifacts robustness.json and report.html. It needs neither
TensorFlow nor this package.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True, type=pathlib.Path)
    parser.add_argument("--uri", default="file:mlruns", help="file:FOLDER, or the address of a server")
    parser.add_argument("--experiment", default="robgan_tf")
    settings = parser.parse_args()
    metrics = settings.run_dir / "metrics.jsonl"
    if not metrics.exists():
        parser.error(f"--run_dir={settings.run_dir} holds no metrics.jsonl: give the folder of a run")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones refuse folders without it
    try:
        import mlflow
    except ImportError:
        parser.error("MLflow is not installed: pip install mlflow-skinny")
    from mlflow.entities import Metric, Param

    mlflow.set_tracking_uri(settings.uri)
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment(settings.experiment)
    name = str(settings.run_dir.resolve())
    found = client.search_runs([experiment.experiment_id], f"tags.run_dir = '{name}'")
    run = found[0] if found else client.create_run(
        experiment.experiment_id, tags={"run_dir": name}, run_name=settings.run_dir.name
    )  # fmt: skip
    done = run.data.metrics.get("lines", 0)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines[int(done) :]:
        stage, step, when = line.pop("stage"), line.pop("step"), round(1000 * line.pop("wall_seconds"))
        values = {f"{stage}/{key}": value for key, value in line.items() if isinstance(value, (int, float))}
        client.log_batch(run.info.run_id, [Metric(key, value, when, step) for key, value in values.items()])
    client.log_metric(run.info.run_id, "lines", len(lines))
    if not done:
        for binding, value in re.findall(r"^([\w./]+) = (.*)$", (settings.run_dir / "config.gin").read_text(), re.M):
            client.log_batch(run.info.run_id, params=[Param(binding, value[:500])])
    for artifact in ("robustness.json", "report.html"):
        if (settings.run_dir / artifact).exists():
            client.log_artifact(run.info.run_id, settings.run_dir / artifact)
    print(f"{len(lines) - int(done)} new lines of {metrics}, run {run.info.run_id} of {settings.uri}")


if __name__ == "__main__":
    sys.exit(main())
