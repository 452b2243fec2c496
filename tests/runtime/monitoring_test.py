"""Callbacks of a training stage."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.runtime.monitoring import MetricsLog, NonFiniteLossError, Periodic
from robgan_tf.runtime.run_directory import RunDirectory


class Counting:
    """What the callbacks need of a stage."""

    name_of_stage, images_per_step, total_steps = "counting", 10, 7

    def __init__(self, step=0):
        self.steps_done = step


def run(callback, first, last, value=lambda step: step):
    callback.on_train_begin()
    for step in range(first, last):
        callback.on_train_batch_end(step - first, {"loss": np.float32(value(step + 1))})
    if isinstance(callback, MetricsLog):
        callback.close()


def test_metrics_are_means_since_the_last_entry_and_the_last_step_has_one(tmp_path):
    run(MetricsLog(Counting(), RunDirectory(tmp_path), every=3), 0, 7)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"], line["images_seen"], line["loss"]) for line in lines] == [
        ("counting", 3, 30, 2.0),
        ("counting", 6, 60, 5.0),
        ("counting", 7, 70, 7.0),
    ]
    assert all(line["images_per_second"] > 0 for line in lines)
    assert [line["wall_seconds"] for line in lines] == sorted(line["wall_seconds"] for line in lines)


def test_scalars_reach_tensorboard(tmp_path):
    run(MetricsLog(Counting(), RunDirectory(tmp_path), every=7), 0, 7)
    (file,) = (tmp_path / "tensorboard" / "counting").iterdir()
    events = [value for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value]
    values = {value.tag: float(tf.make_ndarray(value.tensor)) for value in events}
    assert values["counting/loss"] == 4.0


def test_a_resumed_stage_goes_on_counting(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text('{"stage": "counting", "step": 3, "wall_seconds": 100.0}\n')
    run(MetricsLog(Counting(3), directory, every=3), 3, 7)
    steps = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    assert [line["step"] for line in steps] == [3, 6, 7]
    assert all(line["wall_seconds"] >= 100 for line in steps)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, bad):
    log = MetricsLog(Counting(), RunDirectory(tmp_path), every=3)
    with pytest.raises(NonFiniteLossError, match=r"loss became (nan|inf) at step 5 of counting\. Lower"):
        run(log, 0, 7, lambda step: bad if step == 5 else step)
    log.close()


def test_periodic_calls_at_multiples_and_at_the_end():
    steps = []
    run(Periodic(Counting(), 3, steps.append), 0, 7)
    assert steps == [3, 6, 7]
    steps.clear()
    run(Periodic(Counting(4), 3, steps.append), 4, 7)
    assert steps == [6, 7]
