"""Files are whole or not there: under their names, after errors, and after kills."""

import multiprocessing
import os
import pathlib
import signal

import pytest

from robgan_tf.data.files import clear_unfinished, write_json, write_text, written_aside


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_as_a_whole_and_folders_are_made(tmp_path):
    write_text(tmp_path / "a/file", "old, and longer")
    write_text(str(tmp_path / "a/file"), "new")
    assert contents(tmp_path) == {"a/file": "new"}


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    write_text(tmp_path / "file", "épée ✓")
    assert (tmp_path / "file").read_bytes() == "épée ✓".encode()


def test_json_is_indented_and_ends_its_line(tmp_path):
    write_json(tmp_path / "file.json", {"a": [1]})
    assert (tmp_path / "file.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_until_it_is_whole_the_old_file_is_there(tmp_path):
    write_text(tmp_path / "grid.png", "old")
    with written_aside(tmp_path / "grid.png") as partial:
        assert partial.parent == tmp_path and partial.name.startswith(".") and partial.suffix == ".png"
        partial.write_text("new")
        assert (tmp_path / "grid.png").read_text() == "old"
    assert contents(tmp_path) == {"grid.png": "new"}


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), SystemExit(1)])
def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "file", "old")
    with pytest.raises(type(error)), written_aside(tmp_path / "file") as partial:
        partial.write_text("half")
        raise error
    assert contents(tmp_path) == {"file": "old"}


def test_where_nothing_was_written_there_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "file"):
        pass
    assert contents(tmp_path) == {}


def test_it_can_be_written_in_another_folder_first(tmp_path):
    with written_aside(tmp_path / "shard", folder=tmp_path / ".progress") as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path / ".progress" and not (tmp_path / "shard").exists()
    assert contents(tmp_path) == {"shard": "new"}


def test_what_is_renamed_has_reached_the_disk(tmp_path, monkeypatch):
    calls = []

    def recording(name, call):
        return lambda *args: calls.append(name) or call(*args)

    monkeypatch.setattr(os, "fsync", recording("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", recording("replace", os.replace))
    write_text(tmp_path / "file", "new")
    assert calls == ["fsync", "replace"]


def _write_and_be_killed(path):
    with written_aside(path) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_left_does_not_hide_the_old_file_and_is_cleared(tmp_path):
    write_text(tmp_path / "a/file.json", "old")
    process = multiprocessing.get_context("fork").Process(target=_write_and_be_killed, args=(tmp_path / "a/file.json",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "a/file.json").read_text() == "old" and len(contents(tmp_path)) == 2
    clear_unfinished(tmp_path)
    assert contents(tmp_path) == {"a/file.json": "old"}


def test_only_hidden_leftovers_are_cleared(tmp_path):
    kept = ["partial.txt", "my.partial", "my.partial.png", ".partially"]
    for name in [*kept, ".7.partial.report.html", ".report.html.partial"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".00000004.partial").mkdir()
    (tmp_path / ".00000002.removed").mkdir()
    clear_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_nothing_else_in_the_package_renames_files():
    package = pathlib.Path(__file__).resolve().parents[2] / "robgan_tf"
    renaming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in ("os.replace(", "os.rename(", ".rename("))
    }
    # Checkpoints and exports are folders, with steps between writing and renaming.
    assert renaming == {"data/files.py", "run/checkpoints.py", "serving/saved_model.py"}
