"""Hands the metrics of a run to Weights & Biases: from its `metrics.jsonl`, offline unless asked otherwise.

    pip install wandb
    python tools/to_wandb.py --run_dir=runs/digits --folder=tracking
    wandb sync tracking/wandb/offline-run-*          # later, where there is a network and an account

At the end of a run, or in between: each call makes a record of all that is there, and --online sends it at once.
Metrics are named <stage>/<metric>, over <stage>/step; the configuration is that of config.gin, and the summary has the
accuracies of robustness.json. It needs neither TensorFlow nor this package.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True, type=pathlib.Path)
    parser.add_argument("--folder", default=".", help="where wandb/ is written")
    parser.add_argument("--project", default="robgan_tf")
    parser.add_argument("--online", action="store_true", help="send it at once")
    settings = parser.parse_args()
    metrics, config = settings.run_dir / "metrics.jsonl", settings.run_dir / "config.gin"
    if not metrics.exists():
        parser.error(f"--run_dir={settings.run_dir} holds no metrics.jsonl: give the folder of a run")
    try:
        import wandb
    except ImportError:
        parser.error("Weights & Biases is not installed: pip install wandb")
    pathlib.Path(settings.folder).mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=settings.project,
        name=settings.run_dir.name,
        dir=settings.folder,
        mode="online" if settings.online else "offline",
        config=dict(re.findall(r"^([\w./]+) = (.*)$", config.read_text(), re.M)),
    )
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
    for line in lines:
        stage = line.pop("stage")
        run.log({f"{stage}/{key}": value for key, value in line.items()})
    report = settings.run_dir / "robustness.json"
    if report.exists():
        found = json.loads(report.read_text())
        run.summary.update({"clean": found["clean"], "under_attack": found["worst_case"]["accuracy"]})
    folder = run.dir
    run.finish()
    print(f"{len(lines)} lines of {metrics}, in {pathlib.Path(folder).parent}")


if __name__ == "__main__":
    sys.exit(main())
