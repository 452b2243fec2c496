"""Paths that a user gives: expanded, or refused in a line before anything is written."""

import os
import pathlib
import subprocess
import sys

import pytest

from robgan_tf import paths

ROOT = pathlib.Path(__file__).resolve().parents[1]


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
        ("aaaaaaa/" * 500, "a path has at most 3840 bytes; aaaaaaa/aaaaaaa/aaaa... has 4"),
        (os.fsdecode(b"runs/\xff"), "is not text in UTF-8, which TensorFlow needs: rename it"),
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


@pytest.mark.parametrize("path", ["loop/x", "dangling/x", "dangling"])
def test_a_link_that_leads_nowhere_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ValueError, match=f"{path.partition('/')[0]} is a link that leads nowhere; choose another path"):
        paths.folder_to_write(path, "--run_dir")


@pytest.mark.parametrize("path", ["./x", "a b/c", "Übung/✓", "lr=0.1,bs=8", "a{b}", "100%", "$x"])
def test_odd_names_that_do_no_harm_stay(path):
    assert paths.folder_to_write(path, "--run_dir") == path


def test_other_letters_need_a_locale_that_has_them():
    code = "import os; from robgan_tf import paths; paths.user_path(os.fsdecode('\\u00dcbung'.encode()), '--run_dir')"
    variables = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    failed = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert failed.stderr.rstrip().endswith(
        "in this locale only plain letters may be in a path; set LC_ALL=C.UTF-8, or PYTHONUTF8=1."
    )


@pytest.mark.parametrize(
    "command, flag",
    [
        ("train", "--run_dir=runs/lr[0.1]"),
        ("train", "--gin_file=lr[1].gin"),  # for which the folder is named
        ("train", "--gin_file=."),
        ("evaluate", "--run_dir=runs/lr[0.1]"),
        ("evaluate", "--saved_model=s3://bucket/x"),
        ("evaluate", "--out=file/x.json"),
        ("evaluate_generator", "--run_dir=a\\b"),
        ("evaluate_generator", "--samples=gs://bucket/x.npz"),
        ("evaluate_generator", "--extractor=exports/*"),
        ("export", "--run_dir=file"),
        ("report", "--run_dir=runs/lr[0.1]"),
        ("sample", "--run_dir=runs/lr[0.1]"),
        ("sample", "--out=file/x.png"),
        ("prepare", "--source=gs://bucket/images"),
        ("prepare", "--out=file"),
    ],
)
def test_every_command_refuses_them_in_one_line_before_tensorflow_is_imported(command, flag, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')")
    (tmp_path / "file").write_text("")
    (tmp_path / "lr[1].gin").write_text('include "gin/digits.gin"\n')
    before = sorted(os.listdir(tmp_path))
    answer = subprocess.run(
        [sys.executable, "-m", "robgan_tf", command, flag],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2 and answer.stdout == "", answer.stderr
    (line,) = answer.stderr.splitlines()
    name = "--run_dir" if "lr[1]" in flag else flag.partition("=")[0]
    assert line.startswith(f"error: {name}"), line
    assert sorted(os.listdir(tmp_path)) == before


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_under_the_output_is_said_and_the_status_tells(tmp_path):
    answer = in_a_shell("train --help >/dev/full; echo $?", tmp_path)
    assert answer.stdout == "1\n"
    assert answer.stderr == "error: all is done, but stdout could not be written (No space left on device)\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_what_is_not_written_ends_nothing(tmp_path):
    code = """
from robgan_tf import streams
streams.make_lasting()
for index in range(10_000):
    print(index, flush=True)
open("done", "w").close()
"""
    (tmp_path / "code.py").write_text(code)
    for end in (">/dev/full", ">&-", "| head -1 >/dev/null"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = ["bash", "-c", f"{sys.executable} code.py {end}"]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert answer.stderr == "" and (tmp_path / "done").exists(), end
        (tmp_path / "done").unlink()


def test_versions_of_an_export_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "1", "1x", ".unfinished_export", "latest"):
        (tmp_path / name).mkdir()
    assert [path.name for path in paths.export_versions(tmp_path)] == ["1", "9", "10"]
    assert paths.export_versions(tmp_path / "nowhere") == []
