"""The script for a machine with a GPU: what it names is there, and it goes on where a part fails."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks/gpu_check.sh"
PARTS = ["device", "step_32px", "step_32px_xla", "step_32px_large", "step_128px", "tests"]


def check(*arguments, **environment):
    command = ["bash", SCRIPT, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_tests_that_it_names_are_there():
    (names,) = re.findall(r"TESTS:-(.*)}", SCRIPT.read_text())
    assert names.split() and all((ROOT / name).exists() for name in names.split())


def test_it_goes_on_where_a_part_fails(tmp_path):
    answer = check(tmp_path / "out", PYTHON="false")
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1].endswith(f"failed: {' '.join(PARTS)}")
    assert {f"{part}.log" for part in PARTS} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_it_wants_a_folder():
    answer = check()
    assert answer.returncode == 2 and answer.stderr.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.long
def test_it_goes_through_in_small(tmp_path):
    """On whatever there is, with networks of width 2."""
    small = [f"--gin_param={player}.base_width=2" for player in ("Generator", "Discriminator")]
    small += ["--batch=2", "--discriminator_steps=1", "--attack_steps=1", "--repetitions=1", "--starts=1"]
    answer = check(tmp_path, *small, PYTHON=sys.executable, TESTS="tests/losses_test.py", WORKERS="1", LIMIT="900")
    assert answer.returncode == 0, answer.stdout
    assert {f"{part}.json" for part in PARTS if part != "tests"} <= {path.name for path in tmp_path.iterdir()}
