"""TensorBoard's event files: charts, restarts, what a run is."""

import contextlib
import io
import re

import pytest
import tensorflow as tf

from robgan_tf.experiment import parts  # noqa: F401  (they declare the metrics)
from robgan_tf.experiment.describe import COMPARED, OUTCOMES
from robgan_tf.run.metrics import described
from robgan_tf.run.tensorboard import tidy_events, write_evaluation, write_run


def events(folder):
    """(tag, step) of all summaries in the files of a folder, in the order that TensorBoard reads them."""
    return [
        (value.tag, event.step)
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


def write(folder, steps):
    with tf.summary.create_file_writer(str(folder)).as_default():
        for step in steps:
            tf.summary.scalar("loss", 1.0, step=step)
        tf.summary.flush()
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def inspected(folder):
    """What `tensorboard --inspect` prints of a folder."""
    from tensorboard.backend.event_processing import event_file_inspector

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        event_file_inspector.inspect(str(folder), "", "")
    return printed.getvalue()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("class_accuracy", "1_health/accuracy_train"),
        ("fake_accuracy", "1_health/fakes_detected"),
        ("generator_loss", "2_generator/loss"),
        ("discriminator_gradient_norm", "3_discriminator/gradient_norm"),
        ("classifier_learning_rate", "4_classifier/learning_rate"),
        ("images_per_second", "6_machine/images_per_second"),
    ],
)
def test_charts_are_grouped_by_player_behind_those_of_the_runs_health(metric, expected):
    assert described(metric).tensorboard == expected


def test_a_restart_leaves_no_step_twice_and_nothing_out_of_order(tmp_path):
    write(tmp_path, range(1, 8))
    tidy_events(tmp_path, 4)
    write(tmp_path, range(5, 10))
    tidy_events(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert events(tmp_path) == [("loss", step) for step in range(1, 10)]
    assert re.search(r"outoforder_steps\s+\[\]\n", inspected(tmp_path))


def test_what_a_kill_left_unfinished_at_the_end_of_a_file_goes(tmp_path):
    path = write(tmp_path, [1, 2, 3])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(tf.errors.DataLossError):
        events(tmp_path)
    tidy_events(tmp_path, 3)
    assert events(tmp_path) == [("loss", 1), ("loss", 2)]


def test_a_file_that_a_kill_left_empty_does_not_cost_another_its_version(tmp_path):
    (tmp_path / "events.out.tfevents.0000000000.empty").touch()
    write(tmp_path, [1])
    tidy_events(tmp_path)
    (path,) = tmp_path.iterdir()
    version, _ = tf.compat.v1.train.summary_iterator(str(path))
    assert version.file_version and events(tmp_path) == [("loss", 1)]


def test_files_that_a_restart_from_the_beginning_empties_go_and_others_stay_untouched(tmp_path):
    path = write(tmp_path / "one", [1, 2, 3])
    before = path.stat().st_mtime_ns
    tidy_events(tmp_path / "one", 3)
    assert path.stat().st_mtime_ns == before
    tidy_events(tmp_path / "one", 0)
    assert list((tmp_path / "one").iterdir()) == []
    tidy_events(tmp_path / "nothing", 0)


def test_a_run_is_told_as_text_and_hyperparameters_once_however_often_it_starts(tmp_path):
    settings = {"LInf.epsilon": "0.2", "configure.precision": "'float32'", "CoTraining.losses": "@split()"}
    for _ in range(2):
        write_run(tmp_path, "LInf.epsilon = 0.2\n", settings, {"git_commit": "abc"}, COMPARED, OUTCOMES)
        write_evaluation(tmp_path, {"clean": 0.75, "worst_case": {"accuracy": 0.5}})
    assert sorted(tag for tag, _ in events(tmp_path)) == [
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "run/config",
        "run/manifest",
    ]
    assert events(tmp_path / "evaluation") == [
        ("1_health/test_clean", 0),
        ("1_health/test_attacked", 0),
    ]
