"""Checkpoints: whole or not there, named damage, what is kept, a full disk."""

import os
import subprocess

import pytest
import tensorflow as tf

from robgan_tf.data.files import clear_unfinished
from robgan_tf.keras2 import keras
from robgan_tf.run import checkpoints as checkpoints_module
from robgan_tf.run.checkpoints import CheckpointError, Checkpoints, steps_in
from robgan_tf.run.directory import RunDirectory


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1, 2 and 3, in which the variable has the step's value."""
    variable = tf.Variable(0.0)
    checkpoints = Checkpoints(tmp_path / "stage", {"variable": variable}, keep=3)
    for step in (1, 2, 3):
        variable.assign(step)
        checkpoints.save(step, {"noted": step})
    variable.assign(-1.0)
    return checkpoints, variable


def test_the_newest_comes_back_with_its_notes(saved):
    checkpoints, variable = saved
    assert checkpoints.restore() == {"noted": 3}
    assert float(variable) == 3
    assert checkpoints.steps == [1, 2, 3]


def test_nothing_saved_restores_nothing_and_makes_no_folder(tmp_path):
    assert Checkpoints(tmp_path / "stage", {"variable": tf.Variable(0.0)}).restore() is None
    assert not (tmp_path / "stage").exists()


def test_models_and_optimizers_come_back(tmp_path):
    def make():
        model = keras.Sequential([keras.layers.Dense(2)])
        model.build([None, 3])
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        return model, optimizer

    model, optimizer = make()
    optimizer.apply_gradients(zip([tf.ones([3, 2]), tf.ones([2])], model.trainable_variables))
    Checkpoints(tmp_path, {"model": model, "optimizer": optimizer}).save(1)
    other, other_optimizer = make()
    Checkpoints(tmp_path, {"model": other, "optimizer": other_optimizer}).restore()
    for expected, actual in zip([*model.weights, *optimizer.variables], [*other.weights, *other_optimizer.variables]):
        assert (expected.numpy() == actual.numpy()).all()


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped byte in the data": lambda folder: flip_a_byte(folder / "values.data-00000-of-00001"),
    "truncated index": lambda folder: os.truncate(folder / "values.index", 10),
    "empty index": lambda folder: os.truncate(folder / "values.index", 0),
    "no index": lambda folder: (folder / "values.index").unlink(),
    "no data": lambda folder: (folder / "values.data-00000-of-00001").unlink(),
    "no notes": lambda folder: (folder / "notes.json").unlink(),
    "no checksums": lambda folder: (folder / "checksums.json").unlink(),
    "broken checksums": lambda folder: (folder / "checksums.json").write_text('{"values.ind'),
    "checksums of another kind": lambda folder: (folder / "checksums.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_is_used(saved, caplog, damage):
    checkpoints, variable = saved
    damage(checkpoints.folder / "00000003")
    assert checkpoints.restore() == {"noted": 2}
    assert float(variable) == 2
    assert "00000003 is damaged" in caplog.text
    # Whoever only reads leaves it alone; it is set aside and not deleted when the run comes by again.
    assert checkpoints.steps == [1, 2, 3]
    checkpoints.save(3)
    aside = checkpoints.folder / "00000003.damaged"
    assert aside.is_dir()
    assert checkpoints.restore() == {} and checkpoints.steps == [1, 2, 3]
    content = {path.name: path.read_bytes() for path in aside.iterdir()}
    checkpoints.save(4)
    assert checkpoints.steps == [2, 3, 4]
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == content


def test_what_is_no_checkpoint_any_more_is_passed_by(saved):
    checkpoints, _ = saved
    (checkpoints.folder / "00000009").symlink_to(checkpoints.folder / "nowhere")
    assert checkpoints.restore() == {"noted": 3}


def test_a_checkpoint_that_the_trainer_removes_while_it_is_read_is_not_damaged(saved, monkeypatch, caplog):
    checkpoints, variable = saved
    seen = []

    def sum_of(path):
        seen.append(path)
        if len(seen) == 1:  # the trainer writes two, and keeps two
            trainer = Checkpoints(checkpoints.folder, {"variable": tf.Variable(9.0)}, keep=2)
            trainer.save(4)
            trainer.save(5, {"noted": 5})
        return real(path)

    real = checkpoints_module.file_checksum
    monkeypatch.setattr(checkpoints_module, "file_checksum", sum_of)
    assert checkpoints.restore() == {"noted": 5} and float(variable) == 9
    assert checkpoints.steps == [4, 5] and "damaged" not in caplog.text


def test_damage_to_all_is_an_error_and_not_a_fresh_start(saved):
    checkpoints, variable = saved
    for step in checkpoints.steps:
        DAMAGES["truncated index"](checkpoints.folder / f"{step:08d}")
    with pytest.raises(CheckpointError, match="no checkpoint is whole: .*00000003 .*00000001 .*checksum"):
        checkpoints.restore()
    assert float(variable) == -1


def test_the_newest_and_every_kth_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"variable": tf.Variable(0.0)}, keep=2, keep_every=4)
    for step in range(1, 11):
        checkpoints.save(step)
    assert checkpoints.steps == [4, 8, 9, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000008", "00000009", "00000010"]


def test_what_comes_after_a_fall_back_is_the_newest(saved):
    """Steps 2 and 3 were of a course that was given up; the new one must neither be hidden by them nor removed."""
    checkpoints, variable = saved
    checkpoints.keep = 2
    variable.assign(7.0)
    checkpoints.save(2, {"noted": "new"})
    variable.assign(-1.0)
    assert checkpoints.steps == [1, 2]
    assert checkpoints.restore() == {"noted": "new"} and float(variable) == 7


def test_saving_a_step_again_replaces_it(saved):
    checkpoints, variable = saved
    variable.assign(30.0)
    checkpoints.save(3)
    checkpoints.restore()
    assert float(variable) == 30


def test_what_a_kill_left_is_no_checkpoint_and_goes(saved):
    checkpoints, _ = saved
    for name in (".00000004.partial", ".00000002.removed"):
        (checkpoints.folder / name).mkdir()
        (checkpoints.folder / name / "values.index").write_text("half")
    for name in (".notes.json.partial", ".7.partial.report.html"):
        (checkpoints.folder / name).write_text("half")
    assert checkpoints.steps == [1, 2, 3]
    clear_unfinished(checkpoints.folder.parent)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["00000001", "00000002", "00000003"]


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "stage").write_text("a file")
    with pytest.raises(CheckpointError, match="step 5 could not be written to .*stage"):
        Checkpoints(tmp_path / "stage", {"variable": tf.Variable(0.0)}).save(5)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_those_before_whole_and_says_how_much_was_needed(small_disk):
    variable = tf.Variable(tf.random.uniform([1 << 18]))  # 1 MiB
    before = variable.numpy()
    checkpoints = Checkpoints(small_disk / "stage", {"variable": variable}, keep=2)
    checkpoints.save(1)
    checkpoints.save(2)
    variable.assign(tf.zeros_like(variable))
    with pytest.raises(
        CheckpointError,
        match=r"step 3 .* No space left.* needs 1\.00 MiB and 0\.9\d MiB are free.* newest is of step 2",
    ):
        checkpoints.save(3)
    assert checkpoints.steps == [1, 2] and steps_in(small_disk / "stage") == [1, 2]
    assert not [path for path in checkpoints.folder.iterdir() if path.name.startswith(".")]
    checkpoints.restore()
    assert (variable.numpy() == before).all()


def test_a_disk_that_becomes_read_only_is_named_and_what_is_there_can_be_read(small_disk):
    variable = tf.Variable(1.0)
    checkpoints = Checkpoints(small_disk / "stage", {"variable": variable})
    checkpoints.save(1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    variable.assign(2.0)
    with pytest.raises(
        CheckpointError, match="step 2 could not be written .*Read-only file system.*newest is of step 1"
    ):
        checkpoints.save(2)
    checkpoints.restore()
    assert float(variable) == 1
    with pytest.raises(ValueError, match=r"can't be written \(Read-only file system\): give another"):
        RunDirectory(small_disk / "run").claim("A.b = 1\n")
