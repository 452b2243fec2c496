"""Runs that a former version wrote are read: they go on where they stopped, are evaluated, and their exports answer."""

import json
import pathlib
import shutil
import tarfile

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import command_line
from robgan_tf.bindings import explicit_bindings, operative_config
from robgan_tf.experiment.restoring import restore_generator
from robgan_tf.experiment.run import evaluate, run_stages
from robgan_tf.run.checkpoints import Checkpoints, steps_in
from robgan_tf.run.directory import RunDirectory
from robgan_tf.serving.loading import load_logits
from robgan_tf.training.monitoring import NOT_REPEATABLE
from tests.golden.make_golden import fingerprints, images

GOLDEN = pathlib.Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
# Kernels of other processors round differently: a few units in the last place of float32, that the steps that are left
# add to. On the machine that made the files the values are the same to the bit.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "runs.tar.xz") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def build(runs, tmp_path):
    """Copies a golden run and builds its experiment from its own configuration; returns both."""

    def make(part):
        folder = tmp_path / part
        shutil.copytree(runs / part, folder)
        experiment = command_line.build_experiment(
            [str(folder / "config.gin")], [f"digits.data_dir = '{runs / 'tfds'}'"]
        )
        return experiment, RunDirectory(folder)

    yield make
    gin.clear_config()


def test_a_run_starts_from_the_same_weights_as_it_did(build, tmp_path):
    experiment, _ = build("cotraining")
    Checkpoints(tmp_path / "start", experiment.cotraining.checkpoint_objects()).save(0)
    found = fingerprints(tmp_path / "start" / "00000000")
    for name, value in EXPECTED["start"].items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("part", "stages"), [("cotraining", ("cotrain", "finetune")), ("finetuning", ("finetune",))])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(build, part, stages):
    experiment, run = build(part)
    run.claim(operative_config(), explicit_bindings())
    run_stages(experiment, run, stages)
    run.release()
    assert run.data.exists()
    records = run.metric_records()
    assert len(records) == len(EXPECTED["metrics"])
    for record, expected in zip(records, EXPECTED["metrics"]):
        for name in ("stage", "step", "images_seen"):
            assert record[name] == expected[name]
        for name, value in expected.items():
            if name not in (*NOT_REPEATABLE, "stage"):
                # Accuracies of 16 images or more, two steps together: one may stand on a border.
                atol = 0.04 if name.endswith("accuracy") else 0.0
                np.testing.assert_allclose(record[name], value, rtol=TOLERANCE, atol=atol, err_msg=name)
    for stage, expected in EXPECTED["values"].items():
        found = fingerprints(run.checkpoints(stage) / f"{steps_in(run.checkpoints(stage))[-1]:08d}")
        missing = set(expected) - set(found)
        assert not missing, f"today's checkpoints of {stage} have no {sorted(missing)}"
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name], value, rtol=TOLERANCE, atol=TOLERANCE / 10, err_msg=f"{stage} {name}"
            )


def test_a_finished_run_is_evaluated_as_it_was(build):
    experiment, run = build("finished")
    stored = json.loads(run.robustness.read_text())
    report = evaluate(experiment, run).report
    for split, stored_split in ((report, stored), (report["train"], stored["train"])):
        curve = {point["epsilon"]: point["accuracy"] for point in split["curve"]}
        for point in stored_split["curve"]:
            # 40 images, one of which may stand on a border.
            assert abs(curve[point["epsilon"]] - point["accuracy"]) <= 1 / 40, point
    assert restore_generator(experiment, run).count_params()


def test_an_export_answers_as_it_did(runs):
    folder = str(runs / "finished" / "export" / "1")
    scores = tf.saved_model.load(folder).signatures["serving_default"](tf.constant(images()))["scores"]
    np.testing.assert_allclose(scores, EXPECTED["scores"], rtol=1e-4, atol=1e-6)
    logits = load_logits(folder)(tf.cast(images(), tf.float32) / 127.5 - 1)
    np.testing.assert_allclose(tf.nn.softmax(logits), EXPECTED["scores"], rtol=1e-4, atol=1e-6)
