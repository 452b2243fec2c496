"""The files of a run."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """# Parameters for Foo:
# ====
Foo.size = 3
Foo.names = \\
    ('a',
     'b')
cotraining/Foo.part = @Bar()
"""


def test_a_claimed_folder_takes_the_same_configuration_again_and_refuses_another(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.claim(CONFIG)
    run.claim(CONFIG)
    assert run.config.read_text() == CONFIG
    with pytest.raises(
        ValueError, match=r"made by another configuration: Foo\.size was 3, is 4\. Give a new --run_dir"
    ):
        run.claim(CONFIG.replace("= 3", "= 4"))
    assert run.config.read_text() == CONFIG


def test_what_has_no_part_in_what_is_learnt_may_be_another_at_the_next_claim(tmp_path):
    run = RunDirectory(tmp_path / "run")
    config = "Experiment.upkeep = @Upkeep\nFoo.size = 3\nUpkeep.log_every = {}\n"
    run.claim(config.format(5))
    run.claim(config.format(6))
    assert run.config.read_text() == config.format(6)
    with pytest.raises(ValueError, match=r"Foo\.more was not set, is 1"):
        run.claim(config.format(6) + "Foo.more = 1\n")
    run.claim(config.format(6) + "Foo.more = 1\n", explicit={})  # a parameter that came later, with its default


def test_a_folder_with_other_files_or_a_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        RunDirectory(tmp_path).claim(CONFIG)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        RunDirectory(tmp_path / "thesis.txt").claim(CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_metrics_behind_the_checkpoint_are_forgotten_and_a_broken_line_too(tmp_path):
    run = RunDirectory(tmp_path)
    lines = [{"stage": stage, "step": step, "wall_seconds": 10.0 * step} for stage in ("a", "b") for step in (1, 2, 3)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "b", "st')
    run.forget_metrics_after("b", 2)
    kept = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert kept == [line for line in lines if line["stage"] == "a" or line["step"] <= 2]
    assert run.last_wall_seconds() == 30.0


def test_the_last_checkpoint_is_the_newest_whole_one_of_the_last_stage(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.last_checkpoint() is None
    Checkpoints(run.checkpoints("cotraining"), {"variable": tf.Variable(1.0)}).save(5)
    assert run.last_checkpoint() == run.checkpoints("cotraining") / "00000005"
    Checkpoints(run.checkpoints("finetuning"), {"variable": tf.Variable(1.0)}).save(2)
    assert run.last_checkpoint() == run.checkpoints("finetuning") / "00000002"
    (run.checkpoints("finetuning") / "00000002" / "notes.json").unlink()
    assert run.last_checkpoint() == run.checkpoints("cotraining") / "00000005"


def test_a_run_that_another_process_works_in_is_refused_with_its_owner(tmp_path):
    run, other = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    run.claim(CONFIG)
    with pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .*, started \d{{4}}-.*: wait for it"):
        other.claim(CONFIG)
    run.release()
    assert [path.name for path in run.path.iterdir()] == ["config.gin"]
    other.claim(CONFIG)
    other.release()


def test_a_lock_whose_owner_was_killed_is_taken_over(tmp_path, caplog):
    code = f"""
import os, signal
from robgan_tf.run.directory import RunDirectory
RunDirectory({str(tmp_path / "run")!r}).claim({CONFIG!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "run" / ".lock").exists()
    run = RunDirectory(tmp_path / "run")
    run.claim(CONFIG)
    assert re.search(r"was left locked by process \d+ .* which is gone", caplog.text)
    run.release()
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("left", [".123.partial.config.gin", ".config.gin.partial"])
def test_a_folder_that_a_kill_left_without_a_whole_configuration_is_taken(tmp_path, left):
    (tmp_path / ".lock").write_text("process 1")
    (tmp_path / left).write_text("half")
    run = RunDirectory(tmp_path)
    run.claim(CONFIG)
    run.release()
    assert [path.name for path in tmp_path.iterdir()] == ["config.gin"] and run.config.read_text() == CONFIG


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/run can't be written \(Not a directory\)"):
        RunDirectory(tmp_path / "file" / "run").claim(CONFIG)
