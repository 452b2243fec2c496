"""What evaluation, export and the disk need is asked before the first step, and named in one line."""

import os
import pathlib

import gin
import numpy as np
import pytest

from robgan_tf import command_line
from robgan_tf.data.datasets import Examples, ImageData
from robgan_tf.data.description import check_class_names
from robgan_tf.experiment import disk
from robgan_tf.experiment.build import build
from robgan_tf.experiment.problems import ConfigurationError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ("Generator.base_width = 1", "Discriminator.base_width = 1")


@pytest.fixture
def problems_of():
    """Builds the demo on data of some classes and channels; returns what is said against it."""

    def make(classes, channels=1, evaluation=None, names=None):
        gin.clear_config()
        gin.add_config_file_search_path(str(ROOT))
        files = [ROOT / "gin" / "digits.gin"] + (
            [ROOT / "gin" / "evaluation" / f"{evaluation}.gin"] if evaluation else []
        )
        gin.parse_config_files_and_bindings(list(map(str, files)), list(SMALL))
        labels = np.arange(64, dtype=np.int32) % classes
        split = Examples(np.zeros([64, 16, 16, channels], np.uint8), labels)
        data = ImageData("blank", names or tuple(map(str, range(classes))), split, split, split)
        try:
            return build(data=lambda: data)
        except ConfigurationError as error:
            return str(error)

    return make


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_for_an_attack_of_the_evaluation_are_refused_with_another_one(problems_of, classes):
    (line,) = problems_of(classes, evaluation="standard").splitlines()
    assert f"targeted_dlr_loss needs 4 classes, there are {classes}: take @targeted_margin_loss." in line
    assert f"AutoPGD.targets = 9: of {classes} classes {classes - 1} are wrong for an image" in line


def test_a_targeted_attack_on_one_class_is_refused(problems_of):
    gin.clear_config()
    assert "AutoPGD.targets = 9: with 1 class none is wrong" in problems_of(1, evaluation="standard")


def test_channels_that_an_export_cannot_decode_are_refused(problems_of):
    assert problems_of(4, channels=4).splitlines() == [
        "An export decodes images of 1 channel (grey) or 3 (RGB), the data has 4: give data of 1 or 3 channels."
    ]


def test_names_that_reports_and_exports_cannot_hold_are_refused(problems_of):
    names = ("good", os.fsdecode(b"caf\xe9"), "a\x07b", " ")
    (line,) = problems_of(4, names=names).splitlines()
    assert line.startswith(r"Class names must be text in UTF-8 without control characters")
    for name in (r"'caf\udce9'", r"'a\x07b'", "' '"):
        assert name in line
    line.encode()


def test_names_with_markup_or_of_any_language_are_fine_and_equal_ones_are_not():
    check_class_names(("<b>&amp;</b>", "Äpfel", "りんご", "a b"))
    with pytest.raises(ValueError, match="all different; there are several of 'a'"):
        check_class_names(("a", "b", "a"))


def test_a_run_that_fits_goes_on_and_one_that_does_not_says_what_is_missing(problems_of, tmp_path, monkeypatch):
    experiment = problems_of(4)
    disk.check_disk(experiment, tmp_path / "not" / "there")
    needed = sum(size for name, size in disk.disk_needs(experiment).items() if name != disk.GRIDS)
    monkeypatch.setattr(disk, "free_bytes", lambda run_dir: needed - 1)  # no disk here is as full as that
    with pytest.raises(disk.DiskError, match=r"checkpoints and export need [\d.]+ MiB, [\d.]+ MiB are free"):
        disk.check_disk(experiment, tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "values").write_bytes(b"much")
    disk.check_disk(experiment, tmp_path / "run")  # what is there already needs no more room


def test_a_place_that_cannot_be_written_is_refused(problems_of, tmp_path):
    experiment = problems_of(4)
    (tmp_path / "file").write_text("")
    with pytest.raises(disk.DiskError, match=f"{tmp_path}/file is no folder: give another --run_dir"):
        disk.check_disk(experiment, tmp_path / "file" / "run")


def test_the_commands_ask_before_the_first_step(tmp_path, capsys):
    gin.clear_config()
    params = [*SMALL, f"digits.data_dir = '{tmp_path}'", "RobustnessEvaluation.attacks = [@targeted/AutoPGD()]"]
    params += ["AutoPGD.threat_model = @LInf()", "targeted/AutoPGD.objective = @targeted_margin_loss"]
    experiment = command_line.build_experiment([str(ROOT / "gin" / "digits.gin")], [*params, "AutoPGD.targets = 9"])
    assert experiment.evaluation.attacks[0].targets == 9
    assert capsys.readouterr().err == ""
