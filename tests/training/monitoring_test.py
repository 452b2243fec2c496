"""The metrics of a stage, and what happens around its steps."""

import itertools
import json
import math
import time

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory
from robgan_tf.training.loop import Periodic, Stopped, TrainingLoop
from robgan_tf.training.monitoring import NOT_REPEATABLE, MetricsLog, NonFiniteLossError
from robgan_tf.training.upkeep import Upkeep


class Counting:
    """What the loop needs of a stage."""

    name_of_stage, images_per_step, total_steps = "counting", 10, 7
    headlines = ("loss",)

    def __init__(self, step=0):
        self.variable = tf.Variable(step)

    @property
    def steps_done(self):
        return int(self.variable)

    def layer_sigmas(self):
        return {"first": 1.5, "last": 2.5}

    def learning_rates(self):
        return {"generator_learning_rate": 0.25}

    def signs_of_collapse(self, metrics):
        return ["too large"] if metrics["loss"] > 4 else []


def run(folder, first=0, last=7, value=lambda step: step, every=3, periodics=(), state=None, stops=None, **upkeep):
    """Steps first + 1 .. last with the given losses, as the loop takes them; returns what came into metrics.jsonl."""
    stage, directory = Counting(first), RunDirectory(folder)
    checkpoints = Checkpoints(directory.checkpoints("counting"), {"step": stage.variable}, keep=10)
    with MetricsLog(stage, directory, every, state) as log:
        upkeep = Upkeep(**{"checkpoint_every": 5, **upkeep})
        loop = TrainingLoop(
            stage, log, checkpoints, periodics, upkeep, stops or (lambda: 0), lambda: {"metrics": log.state}
        )
        for step in range(first + 1, last + 1):
            stage.variable.assign(step)
            loop.after_step(step, {"loss": np.float32(value(step))})
    return [json.loads(line) for line in directory.metrics.read_text().splitlines()]


def steps_of(lines):
    return [line["step"] for line in lines]


def test_metrics_are_means_since_the_last_entry_and_the_last_step_has_one(tmp_path):
    lines = run(tmp_path)
    assert [(line["stage"], line["step"], line["images_seen"], line["loss"]) for line in lines] == [
        ("counting", 3, 30, 2.0),
        ("counting", 6, 60, 5.0),
        ("counting", 7, 70, 7.0),
    ]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert [line["wall_seconds"] for line in lines] == sorted(line["wall_seconds"] for line in lines)


def test_scalars_reach_tensorboard(tmp_path):
    run(tmp_path, every=7)
    (file,) = (tmp_path / "tensorboard" / "counting").iterdir()
    events = [value for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value]
    values = {value.tag: float(tf.make_ndarray(value.tensor)) for value in events}
    assert values["4_classifier/loss"] == 4.0
    assert values["2_generator/learning_rate"] == 0.25
    assert (values["5_sigma/first"], values["3_discriminator/largest_sigma"]) == (1.5, 2.5)
    assert values["6_machine/memory_mib"] > 50


def test_time_that_is_no_training_is_told_apart(tmp_path):
    def validate(step):
        time.sleep(0.2)
        return {"attack_seconds": 1e-6}

    (line,) = run(tmp_path, every=7, periodics=[Periodic(7, validate)])
    assert 0.5 < line["upkeep_share"] <= 1 and line["images_per_second"] > 70 / 0.2
    assert 0 < line["attack_share"] <= 1 and "attack_seconds" not in line


def test_images_of_periodic_work_lie_in_the_file_of_the_metrics(tmp_path):
    run(
        tmp_path,
        periodics=[Periodic(7, lambda step: tf.summary.image("grid", np.zeros([1, 2, 2, 3]), step=step) and {})],
    )
    (file,) = (tmp_path / "tensorboard" / "counting").iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(file)))
    assert [event.step for event in events if any(value.tag == "grid" for value in event.summary.value)] == [7]
    assert [event.step for event in events] == sorted(event.step for event in events)


def test_a_run_that_stopped_between_two_entries_writes_the_lines_of_one_that_did_not(tmp_path):
    expected = run(tmp_path / "whole")
    with pytest.raises(Stopped, match="after step 4 of counting"):
        run(tmp_path / "stopped", stops=iter([0] * 3 + [1]).__next__)
    stage = Counting()
    notes = Checkpoints(tmp_path / "stopped" / "checkpoints" / "counting", {"step": stage.variable}).restore()
    assert stage.steps_done == 4
    lines = run(tmp_path / "stopped", first=4, state=notes["metrics"])
    for line in (*expected, *lines):
        for name in NOT_REPEATABLE:
            line.pop(name, None)
    assert lines == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_nothing_of_it_is_written(tmp_path, bad):
    with pytest.raises(NonFiniteLossError, match=r"loss became (nan|inf) at step 6 of counting") as error:
        run(tmp_path, value=lambda step: bad if step == 6 else step, checkpoint_every=1)
    assert error.value.step == 6
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [3]
    assert Checkpoints(tmp_path / "checkpoints" / "counting", {}).steps == [1, 2, 3, 4, 5]


def test_what_is_periodic_comes_at_multiples_and_at_the_end_in_the_line_of_its_step(tmp_path):
    steps = []

    def validate(step):
        steps.append(step)
        return {"accuracy": step / 10}

    lines = run(tmp_path, periodics=[Periodic(2, validate)])
    assert steps == [2, 4, 6, 7]
    assert [(line["step"], line.get("accuracy")) for line in lines] == [
        (2, 0.2),
        (3, None),
        (4, 0.4),
        (6, 0.6),
        (7, 0.7),
    ]


def test_checkpoints_come_by_steps_by_minutes_and_at_the_end(tmp_path):
    run(tmp_path / "steps")
    assert Checkpoints(tmp_path / "steps" / "checkpoints" / "counting", {}).steps == [5, 7]
    run(tmp_path / "minutes", checkpoint_minutes=1e-12)  # always overdue
    assert Checkpoints(tmp_path / "minutes" / "checkpoints" / "counting", {}).steps == [1, 2, 3, 4, 5, 6, 7]


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    now = itertools.count(1e9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    lines = run(tmp_path)
    assert steps_of(lines) == [3, 6, 7] and all(line["images_per_second"] > 0 for line in lines)
    seconds = [line["wall_seconds"] for line in lines]
    assert seconds == sorted(seconds) and 0 <= seconds[0] and seconds[-1] < 60
    assert Checkpoints(tmp_path / "checkpoints" / "counting", {}).steps == [5, 7]  # none for being overdue


def test_a_sign_of_collapse_is_told_once_until_it_goes_away(tmp_path, caplog):
    run(tmp_path, every=1, value=lambda step: [0, 5, 5, 1, 5, 1, 1, 1][step])
    told = [record.getMessage() for record in caplog.records if "too large" in record.getMessage()]
    assert told == ["step 1 of counting: too large.", "step 4 of counting: too large."]
