"""A run of two worker processes over localhost: against one process, with a worker killed, and asked to stop."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.run.checkpoints import steps_in
from robgan_tf.training.monitoring import NOT_REPEATABLE

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Ten steps of co-training and twelve of fine-tuning with gradients as they are: Adam would blow up rounding (see
# stages_test.py). No random starts, which differ from replica to replica.
SMALL = [
    "Generator.base_width = 4",
    "Discriminator.base_width = 4",
    "CoTraining.batch_size = 16",
    "CoTraining.discriminator_steps = 2",
    "CoTraining.optimizer = @SGD",
    "FineTuning.batch_size = 16",
    "FineTuning.epochs = 0.15",
    "FineTuning.optimizer = @SGD",
    "finetuning/Attacker.random_start = False",
    "RobustnessEvaluation.epsilons = (0.0, 0.1)",
    "RobustnessEvaluation.test_examples = 50",
    "RobustnessEvaluation.checks = None",
    "Upkeep.log_every = 2",
    "Upkeep.checkpoint_every = 4",
    "Experiment.sample_every = 5",
    "Experiment.validate_every = 5",
]
SHORT, LONG = "CoTraining.epochs = 0.25", "CoTraining.epochs = 1"
CHECKED = "RobustnessEvaluation.checks = @SanityChecks()"


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@contextlib.contextmanager
def starting(digits_dir, logs):
    """Yields what starts a worker, or a process that is alone; ends all of them."""
    processes = []

    def start(run_dir, worker=None, ports=(), params=(SHORT,)):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
        if worker is not None:
            cluster = {"worker": [f"localhost:{port}" for port in ports]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": worker}})
        bindings = [*SMALL, f"digits.data_dir = '{digits_dir}'", *params]
        command = [sys.executable, "-m", "robgan_tf.train", "--gin_file=gin/digits.gin", f"--run_dir={run_dir}"]
        command += [f"--gin_param={binding}" for binding in bindings]
        path = logs / f"log_{len(processes)}.txt"
        with open(path, "w") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        process.output = path.read_text
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.kill()


@pytest.fixture
def start(digits_dir, tmp_path):
    with starting(digits_dir, tmp_path) as function:
        yield function


@pytest.fixture(scope="module")
def left_alone(digits_dir, tmp_path_factory):
    """The folder of a long run of two workers whom nothing disturbed."""
    folder = tmp_path_factory.mktemp("left_alone")
    with starting(digits_dir, folder) as start:
        ports = free_ports()
        assert ended(*[start(folder / "run", worker, ports, [LONG]) for worker in (0, 1)]) == [0, 0]
    return folder / "run"


def free_ports(count=2):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ended(*processes):
    """Waits for processes; returns their exit status. Where one does not end, shows what all of them said."""
    end = time.monotonic() + 600
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.1)
    statuses = [process.poll() for process in processes]
    assert None not in statuses, (statuses, *(process.output()[-3000:] for process in processes))
    return statuses


def values(run_dir):
    """All values of the newest checkpoint of each stage."""
    found = {}
    for stage in ("cotraining", "finetuning", "finetuning_best"):
        folder = run_dir / "checkpoints" / stage
        reader = tf.train.load_checkpoint(str(folder / f"{steps_in(folder)[-1]:08d}" / "values"))
        for name in reader.get_variable_to_shape_map():
            if "GRAPH" not in name:
                found[f"{stage}: {name}"] = reader.get_tensor(name)
    return found


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in NOT_REPEATABLE} for line in lines]


def files(run_dir):
    """All files but TensorBoard's, which have times in their names."""
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("tensorboard/")}


@pytest.mark.slow
def test_two_workers_equal_one_process_with_the_same_global_batch(start, tmp_path):
    one, two, ports = tmp_path / "one", tmp_path / "two", free_ports()
    processes = [start(two, worker, ports, [SHORT, CHECKED]) for worker in (0, 1)]
    assert ended(*processes) == [0, 0], [process.output() for process in processes]
    assert ended(start(one, params=[SHORT, CHECKED])) == [0]
    assert files(one) == files(two)
    expected, actual = values(one), values(two)
    assert expected.keys() == actual.keys() and len(expected) > 100
    for name, value in expected.items():
        # Sums in another order: float32 rounding of 22 updates.
        np.testing.assert_allclose(value, actual[name], rtol=1e-4, atol=2e-5, err_msg=name)
    for line_one, line_two in zip(metrics(one), metrics(two)):
        assert line_one.keys() == line_two.keys() and line_one["step"] == line_two["step"]
        for name, value in line_one.items():
            if isinstance(value, float):
                np.testing.assert_allclose(value, line_two[name], rtol=1e-3, atol=1e-5, err_msg=name)
    reports = [json.loads((run / "robustness.json").read_text()) for run in (one, two)]
    assert reports[0]["curve"] == reports[1]["curve"] and reports[0]["examples"] == 50


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_and_returns_goes_on_to_the_very_same_result(start, left_alone, tmp_path, victim):
    disturbed, ports = tmp_path / "disturbed", free_ports()
    processes = [start(disturbed, worker, ports, [LONG]) for worker in (0, 1)]
    while not (disturbed / "checkpoints/cotraining/00000012").exists():
        assert [process.poll() for process in processes] == [None, None], [process.output() for process in processes]
        time.sleep(0.1)
    processes[victim].kill()
    processes[victim].wait()
    returned = start(disturbed, victim, ports, [LONG])
    survivor = processes[1 - victim]
    assert ended(returned, survivor) == [0, 0], (returned.output(), survivor.output())
    assert "lost another worker" in survivor.output()
    assert metrics(disturbed) == metrics(left_alone)
    assert files(disturbed) == files(left_alone)
    expected, actual = values(left_alone), values(disturbed)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, actual[name], err_msg=name)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_both_at_the_same_step_and_the_same_command_goes_on(start, tmp_path):
    run, ports = tmp_path / "run", free_ports()
    processes = [start(run, worker, ports, [LONG]) for worker in (0, 1)]
    while not (run / "checkpoints/cotraining/00000004").exists():
        assert [process.poll() for process in processes] == [None, None], [process.output() for process in processes]
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    assert ended(*processes) == [143, 143]
    stops = [line for process in processes for line in process.output().splitlines() if line.startswith("stopped")]
    assert len(stops) == 2 and stops[0] == stops[1]
    step = steps_in(run / "checkpoints/cotraining")[-1]
    assert f"after step {step} of cotraining" in stops[0]
    assert not (run / ".lock").exists()
    # Another number of workers may go on with it: it is the same batch.
    assert ended(start(run, params=[LONG])) == [0]
    steps = [line["step"] for line in metrics(run) if line["stage"] == "cotraining"]
    assert steps == sorted(set(steps)) and steps[:3] == [2, 4, 5]


@pytest.mark.slow
def test_what_the_chief_refuses_and_different_configurations_end_both_with_one_line(start, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("not a run")
    ports = free_ports()
    for run, params, message in [
        ("full", [SHORT, SHORT], "is not empty and holds no run"),
        ("run", [SHORT, LONG], "The workers have different configurations"),
    ]:
        processes = [start(tmp_path / run, worker, ports, [params[worker]]) for worker in (0, 1)]
        assert ended(*processes) == [2, 2], [process.output() for process in processes]
        for process in processes:
            lines = [line for line in process.output().splitlines() if line.startswith("error: ")]
            assert len(lines) == 1 and message in lines[0], process.output()
    assert "CoTraining.epochs was 0.25, is 1" in processes[1].output()
