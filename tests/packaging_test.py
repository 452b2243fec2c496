"""setup.py, constraints.txt and the Makefile's set-up of .venv agree with each other and fail in one clear line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import robgan_tf

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.9.18", "3.10.13", "3.11.7"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def distribution():
    """What setup.py declares, read from the file and not from what happens to be installed."""
    script = """
import json
from setuptools import setup  # noqa: F401 - provides distutils where the standard library has none
from distutils.core import run_setup
d = run_setup("setup.py", stop_after="init")
print(json.dumps({"version": d.get_version(), "python_requires": str(d.python_requires),
                  "install_requires": list(d.install_requires), "extras_require": dict(d.extras_require)}))
"""
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def pins_for(python):
    """The versions that constraints.txt sets for a Python version, by normalised name."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            assert normalised(pin.name) not in pins, f"{pin.name} is pinned twice for Python {python}"
            pins[normalised(pin.name)] = specifier.version
    return pins


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_one_of_the_package(distribution):
    assert distribution["version"] == robgan_tf.__version__


@pytest.mark.parametrize("python", [".".join(map(str, sys.version_info[:3])), *PYTHONS])
def test_constraints_satisfy_every_requirement(distribution, python):
    pins = pins_for(python)
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    extras = distribution["extras_require"]
    # The GPU extra is not pinned, but its TensorFlow must be the one that is.
    for line in [*distribution["install_requires"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = pins.get(normalised(requirement.name))
            assert version is not None, f"{line}: not in constraints.txt for Python {python}"
            assert requirement.specifier.contains(version), f"{line}: constraints.txt has {version}"


def test_constraints_name_no_index_and_no_path():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"^\s*--|://|/tmp/|/home/|/root/", text, re.MULTILINE)


def test_every_package_folder_is_packaged():
    folders = {path.parent for path in (ROOT / "robgan_tf").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders), "find_packages skips these folders"
    assert not (ROOT / "gin" / "__init__.py").exists(), "it would hide the library gin"


@pytest.mark.parametrize("version", [(3, 8, 19), (3, 12, 1)])
def test_setup_under_an_unsupported_python_ends_with_one_line(version):
    script = f"""
import runpy, sys
sys.version_info = {version}
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py", run_name="__main__")
"""
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode != 0
    (line,) = (answer.stdout + answer.stderr).splitlines()
    assert "needs Python 3.9, 3.10 or 3.11" in line
    assert ".".join(map(str, version)) in line


def make(folder, *arguments):
    """Runs make in a copy of what the set-up needs, free of what an outer `make test` hands down."""
    for name in ["Makefile", "setup.py", "constraints.txt"]:
        if not (folder / name).exists():
            shutil.copy2(ROOT / name, folder / name)
    outer = {"ARGS", "EXTRAS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def fake_python(path, version):
    """Writes a shell script that says it is this Python, and makes an environment whose Python is the script again.

    It records its calls in calls.txt; its pip fails as long as there is a file named offline beside the Makefile.
    """
    path.write_text(f"""#!/bin/sh
echo "$*" >> calls.txt
case "$*" in
  *version_info*) echo {version} ;;
  *"-m venv"*) rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"-m pip"*) [ ! -e offline ] ;;
esac
""")
    path.chmod(0o755)
    return path


@needs_make
@pytest.mark.parametrize("version", ["3.8.19", "3.12.1", "3.90.0"])
@pytest.mark.parametrize("target", ["demo", "test", "setup"])
def test_make_refuses_an_unsupported_python_before_it_creates_anything(tmp_path, version, target):
    python = fake_python(tmp_path / "python-fake", version)
    answer = make(tmp_path, target, f"PYTHON={python}")
    assert answer.returncode != 0
    (line,) = (answer.stdout + answer.stderr).splitlines()
    assert "needs Python 3.9, 3.10 or 3.11" in line
    assert f"Python {version}" in line
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_make_names_an_interpreter_that_does_not_run(tmp_path):
    answer = make(tmp_path, "setup", "PYTHON=no-such-python")
    assert answer.returncode != 0
    (line,) = (answer.stdout + answer.stderr).splitlines()
    assert "no-such-python is not a working Python" in line


@needs_make
def test_interrupted_setup_is_repaired_and_a_complete_one_is_kept(tmp_path):
    python = fake_python(tmp_path / "python-fake", "3.11.7")
    calls = tmp_path / "calls.txt"

    (tmp_path / "offline").touch()
    assert make(tmp_path, "setup", f"PYTHON={python}").returncode != 0

    (tmp_path / "offline").unlink()
    (tmp_path / ".venv" / "half-installed").touch()
    assert make(tmp_path, "setup", f"PYTHON={python}").returncode == 0
    assert not (tmp_path / ".venv" / "half-installed").exists()

    calls.unlink()
    assert make(tmp_path, "setup", f"PYTHON={python}").returncode == 0
    assert not calls.exists()

    # Changed requirements: brought up to date in the same environment.
    later = (tmp_path / ".venv" / ".complete").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert make(tmp_path, "setup", f"PYTHON={python}").returncode == 0
    assert "-m pip install" in calls.read_text()
    assert "-m venv" not in calls.read_text()


@needs_make
def test_other_extras_asked_for_by_name_are_added_to_a_complete_setup(tmp_path):
    python, calls = fake_python(tmp_path / "python-fake", "3.11.7"), tmp_path / "calls.txt"
    for arguments, installs in (
        ([], "-e .[dev,serving]"),
        (["EXTRAS=dev,serving,gpu"], "-e .[dev,serving,gpu]"),
        (["EXTRAS=dev,serving,gpu"], None),
        ([], None),  # nothing is taken away again
    ):
        assert make(tmp_path, "setup", f"PYTHON={python}", *arguments).returncode == 0
        if installs is None:
            assert not calls.exists()
        else:
            assert installs in calls.read_text()
            calls.unlink()
