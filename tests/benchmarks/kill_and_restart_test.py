"""Whole runs that are killed or asked to stop, again and again, against one that was left alone."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("name", "seed", "kills"), [("KILL", 1, 4), ("TERM", 2, 2)])
def test_a_run_that_was_stopped_at_random_moments_equals_one_left_alone(tmp_path, name, seed, kills):
    out = tmp_path / "kills.json"
    options = [
        f"--signal={name}",
        f"--seed={seed}",
        f"--kills={kills}",
        f"--out={out}",
        f"--scratch={tmp_path / 'runs'}",
    ]
    command = [sys.executable, "benchmarks/kill_and_restart.py", *options]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = json.loads(out.read_text())
    assert len(result["kills"]) == kills and result["differences"] == []
    assert result["metrics_lines"] > 10 and result["values_compared"] > 100
