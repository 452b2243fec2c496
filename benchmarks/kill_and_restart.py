"""Kills a run at random moments, again and again, and compares it with one that was left alone.

    python benchmarks/kill_and_restart.py --kills=50 --seed=0 --out=kills.json

Both train the same configuration with deterministic operations. The disturbed one is killed with SIGKILL (or asked to
stop, with `--signal=TERM`) at moments drawn evenly from the time that an undisturbed start takes, and started again by
the same command, until it has been killed that often; then it may finish. So the kills fall into co-training,
checkpoints, fine-tuning, evaluation and export. Exit status 1 where anything differs: metrics.jsonl line by line (but
for times and memory), the points of TensorBoard's charts, all values of the checkpoints, the report, or the files that
are there.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("kills", 50, "How often the run is killed.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_enum("signal", "KILL", ["KILL", "TERM", "INT"], "What it is killed with.")
flags.DEFINE_string("gin_file", "gin/digits.gin", "The configuration.")
flags.DEFINE_multi_string("gin_param", [], "Further bindings; they win over those that make the run short.")
flags.DEFINE_string("out", None, "File for the result, JSON.")
flags.DEFINE_string("scratch", None, "Folder for both runs, kept; a temporary one if not given.")

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A run of about a minute and a half, most of it in training steps, with a checkpoint every few of them.
SHORT = (
    "configure.deterministic = True",
    "Generator.base_width = 8",
    "Discriminator.base_width = 8",
    "CoTraining.epochs = 6",
    "FineTuning.epochs = 6",
    "finetuning/linear.initial = 1e-3",
    "Upkeep.log_every = 7",
    "Upkeep.checkpoint_every = 5",
    "Experiment.sample_every = 20",
    "Experiment.validate_every = 15",
    "RobustnessEvaluation.epsilons = (0.0, 0.1)",
)


def command(run_dir: pathlib.Path) -> list[str]:
    params = (*SHORT, *FLAGS.gin_param)
    arguments = [f"--gin_file={FLAGS.gin_file}", f"--run_dir={run_dir}", *(f"--gin_param={param}" for param in params)]
    return [sys.executable, "-m", "robgan_tf.train", *arguments]


def start(run_dir: pathlib.Path, log) -> subprocess.Popen:
    return subprocess.Popen(command(run_dir), cwd=ROOT, stdout=log, stderr=log)


def steps_logged(run_dir: pathlib.Path) -> int:
    metrics = run_dir / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def undisturbed(run_dir: pathlib.Path, log) -> tuple[float, float]:
    """Runs to the end; returns the seconds to the first entry of the metrics, and to the end."""
    began = time.monotonic()
    process = start(run_dir, log)
    first = None
    while process.poll() is None:
        if first is None and steps_logged(run_dir):
            first = time.monotonic() - began
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"error: the undisturbed run failed with status {process.returncode}, see {log.name}")
    return first, time.monotonic() - began


def disturbed(run_dir: pathlib.Path, log, first: float, whole: float) -> list[dict]:
    """Runs with kills, to the end; returns what was killed when."""
    moments = random.Random(FLAGS.seed)
    kills = []
    while len(kills) < FLAGS.kills:
        wait = moments.uniform(0.3 * first, first + 0.4 * (whole - first))
        began = time.monotonic()
        process = start(run_dir, log)
        try:
            status, signalled = process.wait(timeout=wait), False
        except subprocess.TimeoutExpired:
            process.send_signal(getattr(signal, f"SIG{FLAGS.signal}"))
            status, signalled = process.wait(), True
        # A process that had done its work and was about to end when the signal came ends with 0, and was not killed.
        if signalled and status:
            expected = -signal.SIGKILL if FLAGS.signal == "KILL" else 128 + getattr(signal, f"SIG{FLAGS.signal}")
            kills.append({"after_seconds": round(wait, 2), "entries": steps_logged(run_dir), "status": status})
            print(f"kill {len(kills)} after {wait:.1f} s, {steps_logged(run_dir)} entries, status {status}", flush=True)
            if status != expected:
                sys.exit(f"error: expected status {expected}, see {log.name}")
            continue
        if status:
            sys.exit(f"error: a start failed with status {status}, see {log.name}")
        # Finished before it was killed. The machine may have been slower before: the moments are drawn from less time.
        faster = min(1, (time.monotonic() - began) / whole)
        first, whole = first * faster, whole * faster
        # Away with the last results, for the kills that are left.
        shutil.rmtree(run_dir / "export", ignore_errors=True)
        (run_dir / "robustness.json").unlink(missing_ok=True)
        for stage in ("finetuning", "finetuning_best", *(["cotraining"] if moments.random() < 0.5 else [])):
            shutil.rmtree(run_dir / "checkpoints" / stage, ignore_errors=True)
        print("finished: fine-tuning (and perhaps co-training) from anew, for the kills that are left", flush=True)
    if start(run_dir, log).wait():
        sys.exit(f"error: the last start failed, see {log.name}")
    return kills


def lines(run_dir: pathlib.Path) -> list[dict]:
    from robgan_tf.training.monitoring import NOT_REPEATABLE

    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    records.sort(key=lambda record: (record["stage"], record["step"]))
    return [{key: value for key, value in record.items() if key not in NOT_REPEATABLE} for record in records]


def files(run_dir: pathlib.Path) -> set[str]:
    """Names of all files but TensorBoard's, which have times and hosts in their names."""
    names = (path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file())
    return {name for name in names if not name.startswith("tensorboard/")}


def points(run_dir: pathlib.Path) -> collections.Counter:
    """How often each point is in TensorBoard's event files: (folder, tag, step)."""
    import tensorflow as tf

    return collections.Counter(
        (str(path.parent.relative_to(run_dir)), value.tag, event.step)
        for path in run_dir.glob("tensorboard/**/events.out.tfevents.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    )


def values(run_dir: pathlib.Path) -> dict:
    import tensorflow as tf

    found = {}
    for index in sorted(run_dir.glob("checkpoints/*/*/values.index")):
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            if "GRAPH" not in name:
                found[f"{index.parent.relative_to(run_dir)}: {name}"] = reader.get_tensor(name)
    return found


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    import numpy as np

    found = []
    if lines(one) != lines(other):
        found.append("metrics.jsonl")
    if files(one) != files(other):
        found.append(f"files: {sorted(files(one) ^ files(other))}")
    if points(one) != points(other):
        found.append(f"TensorBoard: {sorted((points(one) - points(other)) + (points(other) - points(one)))[:5]}")
    expected, actual = values(one), values(other)
    if expected.keys() != actual.keys():
        found.append(f"checkpoints: {sorted(expected.keys() ^ actual.keys())[:5]}")
    found += [name for name in expected if name in actual and not np.array_equal(expected[name], actual[name])]
    reports = [json.loads((run / "robustness.json").read_text()) for run in (one, other)]
    for report in reports:
        del report["wall_seconds"]
    if reports[0] != reports[1]:
        found.append("robustness.json")
    return found


def main(argv):
    del argv
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    scratch = pathlib.Path(FLAGS.scratch or tempfile.mkdtemp(prefix="kills-"))
    scratch.mkdir(parents=True, exist_ok=True)
    with open(scratch / "log.txt", "w") as log:
        first, whole = undisturbed(scratch / "undisturbed", log)
        print(f"undisturbed: first entry after {first:.1f} s, end after {whole:.1f} s", flush=True)
        kills = disturbed(scratch / "disturbed", log, first, whole)
    found = differences(scratch / "undisturbed", scratch / "disturbed")
    result = {
        "signal": FLAGS.signal,
        "seed": FLAGS.seed,
        "gin_file": FLAGS.gin_file,
        "gin_param": [*SHORT, *FLAGS.gin_param],
        "undisturbed_seconds": {"first_entry": round(first, 1), "end": round(whole, 1)},
        "metrics_lines": len(lines(scratch / "undisturbed")),
        "values_compared": len(values(scratch / "undisturbed")),
        "kills": kills,
        "differences": found,
    }
    if FLAGS.out:
        from robgan_tf.data.files import write_json
        from robgan_tf.run.machine import machine
        from robgan_tf.run.provenance import provenance

        write_json(pathlib.Path(FLAGS.out), {**result, "machine": machine(), **provenance()})
    print(f"{len(kills)} kills, {len(found)} differences{': ' + '; '.join(found[:5]) if found else ''}")
    if not FLAGS.scratch:
        shutil.rmtree(scratch)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    app.run(main)
