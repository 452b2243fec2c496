"""Watches memory and open files of a long run: `python benchmarks/soak.py --steps=5000 --out=soak.json`.

Starts `python -m robgan_tf.train` on the digits with small networks, and checkpoints, image grids and validations every
few steps, and looks at the process once a second. The first fifth of each stage, in which graphs are traced and buffers
filled, does not count. Exit status 1 where, after that, memory grows by more than `--most_mebibytes` within a stage, or
open files by more than a few. Linux only.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

from robgan_tf import command_line  # noqa: F401, isort: skip  (before TensorFlow, whose log it quiets)

from robgan_tf.data.files import write_json
from robgan_tf.run.machine import machine
from robgan_tf.run.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 5000, "Training steps, half of them of each stage.", lower_bound=100)
flags.DEFINE_float("most_mebibytes", 50, "Growth of resident memory that is allowed.")
flags.DEFINE_multi_string("gin_param", [], "Further bindings.")
flags.DEFINE_string("out", None, "File for the result, JSON.")

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES, BATCH = 1287, 32  # the digits' training images; images in a step of each stage
BINDINGS = (
    "Generator.base_width = 4",
    "Discriminator.base_width = 4",
    "CoTraining.batch_size = 16",
    "CoTraining.discriminator_steps = 2",
    "FineTuning.batch_size = 32",
    "finetuning/linear.initial = 1e-3",
    "Upkeep.checkpoint_every = 50",
    "Upkeep.keep_every = 1000",
    "Experiment.sample_every = 100",
    "Experiment.validate_every = 50",
    "RobustnessEvaluation.epsilons = (0.0, 0.1)",
)


def look(process: int) -> tuple[float, int]:
    """Returns the resident memory of a process in MiB, and its number of open files."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    kibibytes = int(status.split("VmRSS:")[1].split()[0])
    return kibibytes / 1024, len(list(pathlib.Path(f"/proc/{process}/fd").iterdir()))


def growth(seen: list[tuple]) -> dict:
    """Returns what a stage's last fifth has more than its second."""
    memory, files = np.array([row[2:] for row in seen]).T
    fifth = len(seen) // 5
    early, late = slice(fifth, 2 * fifth), slice(-fifth, None)
    mebibytes = float(np.median(memory[late]) - np.median(memory[early]))
    return {"mebibytes": round(mebibytes, 1), "open_files": int(files[late].max() - files[early].max())}


def main(argv):
    del argv
    epochs = FLAGS.steps / 2 * BATCH / EXAMPLES
    params = (*BINDINGS, f"CoTraining.epochs = {epochs}", f"FineTuning.epochs = {epochs}", *FLAGS.gin_param)
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "robgan_tf.train", f"--gin_file={ROOT}/gin/digits.gin", f"--run_dir={run}"]
        command += [f"--gin_param={param}" for param in params]
        began, seen = time.monotonic(), {"cotraining": [], "finetuning": []}
        with open(f"{folder}/log.txt", "w") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            while process.poll() is None:
                # The evaluation and the export that follow are other work.
                if (run / "metrics.jsonl").exists() and not (run / "robustness.json").exists():
                    entries = (run / "metrics.jsonl").read_text().count("\n")
                    stage = "finetuning" if (run / "checkpoints/finetuning").exists() else "cotraining"
                    try:
                        seen[stage].append((round(time.monotonic() - began, 1), entries, *look(process.pid)))
                    except (OSError, IndexError):  # it ended in between
                        continue
                time.sleep(1)
        if process.returncode:
            sys.exit(f"error: the run failed: {pathlib.Path(folder, 'log.txt').read_text()[-1000:]}")
    result = {stage: growth(rows) for stage, rows in seen.items()}
    if FLAGS.out:
        curves = {
            stage: [[*row[:2], round(row[2], 1), row[3]] for row in rows[:: max(len(rows) // 50, 1)]]
            for stage, rows in seen.items()
        }
        columns = ["seconds", "entries of metrics.jsonl", "resident MiB", "open files"]
        report = {"steps": FLAGS.steps, "gin_param": list(params), "growth": result, "columns": columns, "seen": curves}
        write_json(pathlib.Path(FLAGS.out), {**report, "machine": machine(), **provenance()})
    for stage, more in result.items():
        print(f"{stage}: memory grew by {more['mebibytes']} MiB and open files by {more['open_files']}")
    sys.exit(any(more["mebibytes"] > FLAGS.most_mebibytes or more["open_files"] > 5 for more in result.values()))


if __name__ == "__main__":
    app.run(main)
