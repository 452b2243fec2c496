"""The Dockerfile for training names what is there. (It is not built: that needs the network.)"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "tools" / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_what_is_copied_is_there_and_the_constraints_are_installed_from():
    copied = [name for line in re.findall(r"^COPY (.*)$", TEXT, re.M) for name in line.split()[:-1]]
    assert len(copied) > 5 and all((ROOT / name).exists() for name in copied), copied
    assert "constraints-2.15.txt" in copied and "-c /source/constraints-2.15.txt" in TEXT


def test_its_python_is_one_that_the_constraints_are_for():
    assert re.search(r"^ARG BASE=python:3\.(9|10|11)-slim$", TEXT, re.M)
