"""A run knows its data: data that were moved go on, any other data are refused, by every stage."""

import json
import pathlib
import shutil

import gin
import numpy as np
import PIL.Image
import pytest

from robgan_tf import command_line
from robgan_tf.bindings import explicit_bindings, operative_config
from robgan_tf.experiment.known_data import DataChangedError, check_data
from robgan_tf.experiment.restoring import restore_classifier
from robgan_tf.experiment.run import evaluate, export, run_stages
from robgan_tf.run.directory import RunDirectory

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSES = ("apple", "beetle", "cup", "dog")
# Two steps of standard training.
SMALL = (
    "Experiment.data = @image_folder",
    "image_folder.image_size = 16",
    "image_folder.validation_examples = 8",
    "Generator.base_width = 1",
    "Discriminator.base_width = 1",
    "FineTuning.batch_size = 16",
    "FineTuning.epochs = 1",
    "RobustnessEvaluation.checks = None",
)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 2)):
        for name in CLASSES:
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                image = PIL.Image.fromarray(random.integers(0, 256, [16, 16, 3], np.uint8))
                image.save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def start(tmp_path):
    """Builds the experiment on a folder of photographs and claims the run directory, as the command does."""

    def make(folder, *params):
        gin.clear_config()
        files = [str(ROOT / "gin" / "digits.gin"), str(ROOT / "gin" / "baselines" / "standard_training.gin")]
        experiment = command_line.build_experiment(files, [*SMALL, f"image_folder.data_dir = '{folder}'", *params])
        run = RunDirectory(tmp_path / "run")
        run.claim(operative_config(), explicit_bindings())
        return experiment, run

    return make


@pytest.fixture
def trained(photos, start):
    experiment, run = start(photos)
    run_stages(experiment, run, ("finetune",))
    run.release()
    return run


def test_a_run_keeps_what_its_data_are_from_the_first_step_on(trained):
    kept = json.loads(trained.data.read_text())
    assert kept["class_names"] == list(CLASSES) and kept["image_shape"] == [16, 16, 3]
    assert kept["counts"] == {"train": [8] * 4, "validation": [2] * 4, "test": [2] * 4}
    assert set(kept["fingerprint"]) == {f"{split}/{name}" for split in ("train", "test") for name in CLASSES}


def test_a_class_that_was_renamed_is_refused_by_every_stage_and_nothing_is_written(trained, photos, start):
    for split in ("train", "val"):
        (photos / split / "apple").rename(photos / split / "zebra")
    before = sorted(trained.path.rglob("*"))
    experiment, run = start(photos)
    for stage in (
        lambda: run_stages(experiment, run, ("finetune",)),
        lambda: evaluate(experiment, run),
        lambda: export(experiment, run),
        lambda: restore_classifier(experiment, run),
    ):
        with pytest.raises(DataChangedError) as error:
            stage()
        assert "class 'apple' (label 0) is gone; class 'zebra' (label 3) is new" in str(error.value)
        assert "class 'beetle' had label 1, has 0" in str(error.value)
    run.release()
    assert sorted(trained.path.rglob("*")) == before


def test_data_that_were_moved_go_on_and_the_run_knows_where_they_are(trained, photos, start):
    shutil.move(photos, photos.parent / "elsewhere")
    experiment, run = start(photos.parent / "elsewhere", "image_folder.in_memory = False")
    run_stages(experiment, run, ("finetune",))
    assert "elsewhere" in run.config.read_text()
    run.release()


def test_evaluation_export_measures_and_intervals_may_change_and_what_is_learnt_may_not(photos, start):
    start(photos)[1].release()
    for binding in (
        "Upkeep.log_every = 7",
        "ExportOptions.max_pixels = 1000000",
        "GenerationEvaluation.samples = 50",
        "ClassifierTraining.updates = 5",
        "RobustnessEvaluation.epsilons = (0.0, 0.3)",
        "evaluation/Attacker.steps = 30",
        "Experiment.sample_every = 9",
        "inception.directory = 'there'",
    ):
        start(photos, binding)[1].release()
    for binding in ("FineTuning.epochs = 2", "Experiment.seed = 1", "pad_and_crop.padding = 2"):
        with pytest.raises(ValueError, match=f"made by another configuration: {binding.split()[0]} was"):
            start(photos, binding)


def test_a_run_from_before_gets_its_description_at_the_next_start(trained, photos, start):
    trained.data.unlink()
    experiment, run = start(photos)
    restore_classifier(experiment, run)
    assert not run.data.exists()  # it may be of others: a reader writes nothing
    run_stages(experiment, run, ("finetune",))
    assert run.data.exists()
    run.data.write_text("[]")
    with pytest.raises(DataChangedError, match=r"data\.json, the description of the run's data, can't be read"):
        run_stages(experiment, run, ("finetune",))
    run.release()


def test_uneven_classes_are_said_once_in_a_run(photos, start, caplog):
    for number in range(70):
        shutil.copy(photos / "train/cup/0.png", photos / f"train/cup/more{number}.png")
    for _ in range(2):
        experiment, run = start(photos)
        check_data(experiment, run, keep=True)
        run.release()
    assert caplog.text.count("(cup) training images: what is learnt") == 1
