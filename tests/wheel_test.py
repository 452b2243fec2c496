"""The built wheel is enough: from an empty folder, without the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
SMALL = (
    "Generator.base_width=4",
    "Discriminator.base_width=4",
    "CoTraining.epochs=0.2",
    "FineTuning.epochs=0.2",
    "RobustnessEvaluation.test_examples=40",
    "RobustnessEvaluation.checks=None",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building leaves things behind."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("robgan_tf", "gin"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def test_it_holds_every_configuration_template_and_marker_and_nothing_named_gin_at_the_top(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("gin", "robgan_tf/pages"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".gin", ".html", ".css"):
                inside = path.relative_to(ROOT).as_posix()
                assert (inside if inside.startswith("robgan_tf") else f"robgan_tf/{inside}") in names, path
    assert "robgan_tf/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"robgan_tf"}


def test_the_demo_runs_to_its_export_in_an_empty_folder(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "TF_CPP_MIN_LOG_LEVEL": "3"}
    where = [sys.executable, "-c", "import robgan_tf; print(robgan_tf.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(installed))
    command = [str(installed / "bin" / "robgan"), "train", "--gin_file=gin/digits.gin"]
    command += [f"--gin_param={param}" for param in (*SMALL, f"digits.data_dir='{tmp_path}/tfds'")]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    run = tmp_path / "runs" / "digits"
    assert (run / "export" / "1" / "saved_model.pb").exists() and (run / "report.html").exists()
