"""How long a run takes: identities between what was timed and what is said, with times that are given."""

import itertools
import pathlib

import gin
import pytest

from robgan_tf import command_line
from robgan_tf.experiment import prediction
from robgan_tf.experiment.footprint import Footprint
from robgan_tf.experiment.needs import EvaluationNeeds, RunNeeds, StepNeeds, step_needs
from robgan_tf.experiment.prediction import StepTime, Timing, part_to_time, share_of, time_calls

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ["Generator.base_width = 2", "Discriminator.base_width = 2"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    gin.clear_config()
    params = [f"digits.data_dir = '{tmp_path_factory.mktemp('tfds')}'", *SMALL, "CoTraining.accumulation = 2"]
    return command_line.build_experiment([str(ROOT / "gin/digits.gin")], params)


def time_with(seconds):
    """Times calls that take so many seconds each, by the clock, and half of them of the processors."""
    calls, now, taken = [], [0.0], iter(seconds)

    def call():
        calls.append(next(taken))
        now[0] += calls[-1]

    return time_calls(call, clock=lambda: now[0], processor=lambda: now[0] / 2), len(calls)


def test_the_first_call_is_apart_and_the_median_of_the_others_counts():
    assert time_with([8.0, 1.0, 5.0, 0.5]) == (Timing(first=8.0, seconds=1.0, cpu=6.5 / 3 / 2), 4)


def test_short_calls_are_timed_for_two_seconds_and_very_long_ones_once():
    timing, calls = time_with([1.0, *itertools.repeat(0.125, 16)])
    assert (timing.seconds, calls) == (0.125, 17)
    timing, calls = time_with([30.0, 20.0])
    assert (timing.seconds, calls) == (20.0, 2)


def test_a_stage_takes_its_steps_and_once_what_the_first_one_takes_more():
    timing = Timing(first=7.0, seconds=0.5, cpu=0.0)
    assert StepTime(timing, images=96).of_steps(1000) == 6.5 + 1000 * 0.5
    assert StepTime(timing, images=32, share=0.25).of_steps(1000) == 6.5 + 1000 * 2.0
    assert StepTime(timing, images=96, waiting=0.75).of_steps(1000) == 6.5 + 1000 * 0.75


def test_what_was_timed_is_said():
    timing = Timing(first=7.25, seconds=0.5, cpu=0.0)
    assert str(StepTime(timing, 96)) == "0.5 s a step; 7.25 s the first, which is traced"
    assert str(StepTime(timing, 8, share=0.25)).startswith("2 s a step by the arithmetic, from 0.5 s for 8 real images")
    waits = str(StepTime(timing, 96, waiting=0.75))
    assert waits.startswith("0.75 s a step, as the reader gives its images; 0.5 s where they are there")


def test_a_long_step_is_timed_in_part(experiment):
    stage = experiment.cotraining  # 3 micro-batches of 32 images, in 2 parts
    # Of 10 operations 1 is the generator's, and 3 are of each micro-batch.
    need = StepNeeds({}, peak=0, flops=10, flops_of_a_round=3, batch=0)
    assert part_to_time(stage, need, rate=5.0) is stage  # two seconds
    for rate, images in ((4.9, 16), (1.0, 16), (0.95, 8), (0.125, 2), (0.05, 2)):
        part = part_to_time(stage, need, rate)
        assert (part.micro_batches, part.accumulation, part.images_per_step) == (1, 1, images)
    assert share_of(part_to_time(stage, need, 1.0), stage, need) == pytest.approx(0.4 / 2)
    assert share_of(stage, stage, need) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cotraining", "finetuning"])
def test_a_part_has_the_share_of_the_arithmetic_that_is_said(experiment, name):
    stage, shape = getattr(experiment, name), experiment.data.image_shape
    need = step_needs(stage, shape, experiment.strategy)
    part = stage.with_images_at_once(8)
    expected = step_needs(part, shape, experiment.strategy).flops / need.flops
    # W u, for sigma, is the same whatever the batch.
    assert share_of(part, stage, need) == pytest.approx(expected, rel=0.02)


def test_a_prediction_adds_up_steps_validations_and_attacks(experiment, monkeypatch):
    monkeypatch.setattr(prediction, "time_calls", lambda call: Timing(first=8.0, seconds=0.5, cpu=0.0))
    steps = {stage: StepNeeds({}, 0, 1000, 300, 0) for stage in experiment.training_stages}
    # Two attacks, of one and of three runs; the short one, of 250 images, is timed on all of them.
    evaluation = EvaluationNeeds(None, 360, 250, 0, [Footprint(0, 2000), Footprint(0, 500)], None, Footprint(0, 100))
    needs = RunNeeds(steps, 50, Footprint(0, 400), evaluation)
    found = prediction.predict(experiment, needs, 1e9, {experiment.finetuning: 0.75})
    # 1,005 steps; 3,218 of them as fast as the reader, with 9 validations of 150 images, of 400 operations for 50,
    # which do not wait for it.
    assert found.training["cotraining"] == 7.5 + 1005 * 0.5
    assert found.training["finetuning"] == pytest.approx(7.5 + 3218 * 0.75 + 9 * 3 * 400 / 1000 * 0.5)
    # 360 test images and as many training images at 6 epsilons.
    assert found.attacks == pytest.approx(0.5 / 250 * 720 * 6 * (2000 + 3 * 500) / 100)


@pytest.mark.slow
def test_real_steps_are_timed_and_trained_on_the_data(experiment):
    stage = experiment.finetuning
    done, need = stage.steps_done, StepNeeds({}, 0, 10, 10, 0)
    step = prediction.time_step(experiment, stage, need, rate=1e9)
    assert step.share == 1 and 0 < step.seconds < step.timing.first and stage.steps_done >= done + 4
