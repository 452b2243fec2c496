"""Paths that a user gives: expanded, or refused in a line before anything is written."""

import os
import subprocess
import sys

import pytest

from robgan_tf import paths


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.user_path("~/runs/x", "--run_dir") == str(tmp_path / "runs" / "x")


@pytest.mark.parametrize(
    "path, message",
    [
        ("runs/lr[0.1]", r"--run_dir=runs/lr\[0.1\]: TensorFlow takes \[ for a pattern"),
        ("runs/a*", r"takes \* for a pattern"),
        ("runs/a?", r"takes \? for a pattern"),
        ("runs\\a", r"takes \\ for a pattern"),
        ("gs://bucket/x", "only paths of this machine are read and written; mount"),
        ("https://host/x", "only paths of this machine"),
        ("~nobody_of_this_name/x", "there is no user 'nobody_of_this_name'"),
        ("", "--run_dir is empty"),
        ("  ", "--run_dir is empty"),
        ("x" * 300, "at most 255 bytes; x+... has 300"),
        ("\u00e9" * 200, "at most 255 bytes; .* has 400"),
        ("a\0b", "no NUL character"),
        (5, "--run_dir is a path in quotes.*got 5"),
    ],
)
def test_a_path_that_would_not_do_is_refused_in_a_line(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        paths.user_path(path, "--run_dir")
    assert "\n" not in str(caught.value)


def test_a_pattern_is_fine_where_tensorflow_does_not_read():
    assert paths.local_path("photos [2024]", "image_folder.data_dir") == "photos [2024]"


def test_a_folder_is_not_made_and_a_file_in_its_way_is_named(tmp_path):
    assert paths.folder_to_write(str(tmp_path / "a" / "b"), "--run_dir") == str(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file is a file, no folder"):
            paths.folder_to_write(str(path), "--run_dir")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder: give the path of a file in it"):
        paths.file_to_write(str(tmp_path), "--out")
    assert paths.file_to_write(str(tmp_path / "new" / "report.json"), "--out").endswith("report.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="can't be written"):
        paths.folder_to_write(str(tmp_path / "x"), "--run_dir")


# ---- standard output and error


def in_a_shell(script, folder):
    command = f"{sys.executable} -m robgan_tf {script}"
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)


def test_output_that_nobody_reads_is_closed_or_lacks_letters_ends_nothing_with_a_traceback(tmp_path):
    assert in_a_shell("train --help | head -1", tmp_path).stderr == ""
    assert in_a_shell("configurations >&-", tmp_path).stderr == ""
    assert in_a_shell("train --gin_file=x 2>&-; echo $?", tmp_path).stdout == "2\n"
    answer = in_a_shell("train --gin_file=caf\u00e9.gin; export X=1", tmp_path)
    assert "caf" in answer.stderr and "Traceback" not in answer.stderr
    lost = subprocess.run(
        [sys.executable, "-m", "robgan_tf.train", "--gin_file=caf\u00e9.gin"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert lost.returncode == 2 and "caf\\xe9.gin" in lost.stderr
