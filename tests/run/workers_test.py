"""Workers that are alone, and what TF_CONFIG may say. Several of them: `several_workers_test.py`."""

import pytest

from robgan_tf.run import devices
from robgan_tf.run.workers import Workers, cluster_size

TWO = '{"cluster": {"worker": ["one:1", "two:2"]}, "task": {"type": "worker", "index": 1}}'


def test_a_worker_that_is_alone_is_the_chief_and_agrees_with_itself(tmp_path):
    workers = Workers()
    assert workers.is_chief and workers.count == 1
    assert workers.on_chief(lambda: "done") == "done"
    assert workers.highest(3, True) == (3, True)
    with workers.copy_of(tmp_path) as folder:
        assert folder == tmp_path
    with pytest.raises(ZeroDivisionError):
        workers.on_chief(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (None, 1),
        ("", 1),
        ("{}", 1),
        ('{"cluster": {"worker": ["one:1"]}, "task": {"type": "worker", "index": 0}}', 1),
        (TWO, 2),
        ('{"cluster": {"chief": ["zero:0"], "worker": ["one:1"]}, "task": {"type": "chief", "index": 0}}', 2),
    ],
)
def test_the_number_of_workers_is_what_tf_config_says(monkeypatch, config, size):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    assert cluster_size() == size


@pytest.mark.parametrize(
    "config",
    [
        TWO[:-1],
        TWO.replace('"index": 1', '"index": 2'),
        TWO.replace('"type": "worker"', '"type": "boss"'),
        TWO.replace('"cluster": {', '"cluster": {"ps": ["three:3"], '),
        '{"cluster": {"worker": ["one:1", "two:2"]}}',
        "two",
        "[1, 2]",
    ],
)
def test_a_tf_config_that_cannot_be_used_is_shown_beside_one_that_can(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r'TF_CONFIG must look like \{"cluster": \{"worker": \["host1:port"'):
        devices.configure()


def test_several_workers_and_replicas_by_hand_exclude_each_other(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", TWO)
    with pytest.raises(ValueError, match="TF_CONFIG is set.*configure.replicas = 2 exclude each other"):
        devices.configure(replicas=2)


def test_a_tpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="configure.tpu = 'local' can't be reached"):
        devices.configure(tpu="local")
