"""setup.py, constraints-*.txt and the Makefile's set-up of .venv agree with each other and fail in one clear line."""

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
# The TensorFlow beside each Python, the first of them where none is asked for.
STACKS = {
    "3.9.18": ["2.15"],
    "3.10.13": ["2.15", "2.21"],
    "3.11.7": ["2.15", "2.21"],
    "3.12.1": ["2.21"],
    "3.13.0": ["2.21"],
}
PAIRS = [(python, stack) for python, stacks in STACKS.items() for stack in stacks]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def declared(stack=None):
    """What setup.py declares, read from the file and not from what happens to be installed."""
    script = """
import json
from setuptools import setup  # noqa: F401 - provides distutils where the standard library has none
from distutils.core import run_setup
d = run_setup("setup.py", stop_after="init")
print(json.dumps({"version": d.get_version(), "python_requires": str(d.python_requires),
                  "install_requires": list(d.install_requires), "extras_require": dict(d.extras_require)}))
"""
    environment = {name: value for name, value in os.environ.items() if name != "ROBGAN_TENSORFLOW"}
    environment.update({"ROBGAN_TENSORFLOW": stack} if stack else {})
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def distributions():
    """What setup.py declares where no TensorFlow is asked for, and for each that can be."""
    return {stack: declared(stack) for stack in (None, "2.15", "2.21")}


def environment_of(python):
    return {"python_full_version": python, "python_version": python.rpartition(".")[0]}


def pins_for(python, stack):
    """The versions that the constraints of a TensorFlow set for a Python version, by normalised name."""
    pins = {}
    for line in (ROOT / f"constraints-{stack}.txt").read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment_of(python)):
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            assert normalised(pin.name) not in pins, f"{pin.name} is pinned twice for Python {python}"
            pins[normalised(pin.name)] = specifier.version
    return pins


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_one_of_the_package(distributions):
    assert distributions[None]["version"] == robgan_tf.__version__


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("python, stack", PAIRS)
def test_constraints_satisfy_every_requirement(distributions, python, stack, asked):
    if not asked and stack != STACKS[python][0]:
        return  # not what is installed without asking
    pins, distribution = pins_for(python, stack), distributions[stack if asked else None]
    extras = distribution["extras_require"]
    # The GPU extra is not pinned, but its TensorFlow must be the one that is.
    for line in [*distribution["install_requires"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment_of(python)):
            version = pins.get(normalised(requirement.name))
            assert version is not None, f"{line}: not in constraints-{stack}.txt for Python {python}"
            assert requirement.specifier.contains(version), f"{line}: constraints-{stack}.txt has {version}"


@pytest.mark.parametrize("python, stack", PAIRS)
def test_each_python_gets_one_tensorflow_with_its_keras_2(python, stack):
    pins = pins_for(python, stack)
    assert pins["tensorflow"].startswith(stack)
    if stack == "2.15":
        assert pins["keras"].startswith("2.15") and {"tensorflow-addons", "tensorflow-gan"} <= set(pins)
    else:
        assert pins["tf-keras"].startswith(stack) and not {"tensorflow-addons", "tensorflow-gan"} & set(pins)


def test_a_tensorflow_that_there_is_not_is_refused_in_one_line():
    environment = {**os.environ, "ROBGAN_TENSORFLOW": "2.18"}
    answer = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (
        answer.returncode != 0 and answer.stderr.strip() == "ROBGAN_TENSORFLOW=2.18 is unknown: it may be 2.15 or 2.21."
    )


@pytest.mark.parametrize("stack", ["2.15", "2.21"])
def test_constraints_name_no_index_and_no_path(stack):
    text = (ROOT / f"constraints-{stack}.txt").read_text(encoding="utf-8")
    assert not re.search(r"^\s*--|://|/tmp/|/home/|/root/", text, re.MULTILINE)


def test_every_package_folder_is_packaged():
    folders = {path.parent for path in (ROOT / "robgan_tf").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders), "find_packages skips these folders"
    assert not (ROOT / "gin" / "__init__.py").exists(), "it would hide the library gin"


@pytest.mark.parametrize("version", [(3, 8, 19), (3, 14, 0)])
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
    assert "needs Python 3.9 to 3.13" in line
    assert ".".join(map(str, version)) in line


def make(folder, *arguments):
    """Runs make in a copy of what the set-up needs, free of what an outer `make test` hands down."""
    for name in ["Makefile", "setup.py", "constraints-2.15.txt", "constraints-2.21.txt"]:
        if not (folder / name).exists():
            shutil.copy2(ROOT / name, folder / name)
    outer = {"ARGS", "EXTRAS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "TENSORFLOW", "VENV"}
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
@pytest.mark.parametrize("version", ["3.8.19", "3.14.1", "3.90.0"])
@pytest.mark.parametrize("target", ["demo", "test", "setup"])
def test_make_refuses_an_unsupported_python_before_it_creates_anything(tmp_path, version, target):
    python = fake_python(tmp_path / "python-fake", version)
    answer = make(tmp_path, target, f"PYTHON={python}")
    assert answer.returncode != 0
    (line,) = (answer.stdout + answer.stderr).splitlines()
    assert "needs Python 3.9 to 3.13" in line
    assert f"Python {version}" in line
    assert not (tmp_path / ".venv").exists()


@needs_make
@pytest.mark.parametrize(
    "version, asked, stack", [("3.11.7", [], "2.15"), ("3.13.0", [], "2.21"), ("3.10.13", ["2.21"], "2.21")]
)
def test_make_installs_the_tensorflow_that_goes_with_the_python(tmp_path, version, asked, stack):
    python = fake_python(tmp_path / "python-fake", version)
    assert make(tmp_path, "setup", f"PYTHON={python}", *(f"TENSORFLOW={one}" for one in asked)).returncode == 0
    assert f"-c constraints-{stack}.txt" in (tmp_path / "calls.txt").read_text()
    # The environment keeps it.
    assert (tmp_path / ".venv" / ".complete").read_text().split()[1] == stack


@needs_make
@pytest.mark.parametrize("version, stack", [("3.13.0", "2.15"), ("3.9.18", "2.21"), ("3.11.7", "2.18")])
def test_make_refuses_a_tensorflow_that_does_not_go_with_the_python(tmp_path, version, stack):
    answer = make(tmp_path, "setup", f"PYTHON={fake_python(tmp_path / 'python-fake', version)}", f"TENSORFLOW={stack}")
    assert answer.returncode != 0
    (line,) = (answer.stdout + answer.stderr).splitlines()
    assert f"TENSORFLOW={stack} does not go with Python {version}" in line and not (tmp_path / ".venv").exists()


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
    os.utime(tmp_path / "constraints-2.15.txt", (later, later))
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
