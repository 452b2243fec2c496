"""Signals as requests to stop, in processes of their own."""

import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Asks after each of up to forty steps of 50 ms; while it is deaf, it does what does not heed requests.
CODE = """
import sys, time
from robgan_tf.run.signals import StopSignals
stops = StopSignals()
stops.before_exit = lambda: print("cleaned up", flush=True)
if sys.argv[1] == "deaf":
    print("ready", flush=True)
    time.sleep(10)
with stops.active():
    print("ready", flush=True)
    for step in range(40):
        time.sleep(10 if sys.argv[1] == "stuck" else 0.05)
        if stops.requested():
            print("saved", flush=True)
            sys.exit(stops.requested())
sys.exit(9)
"""


@pytest.fixture
def start():
    processes = []

    def start(how):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", CODE, how], cwd=ROOT, text=True, **pipes)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_lets_the_step_end(start, number, status):
    process = start("steps")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (status, "saved\n")
    assert err.strip() == f"{number.name}: stopping with a checkpoint after this step; once more to end at once"


def test_the_second_signal_ends_at_once(start):
    process = start("stuck")  # in a step of ten seconds
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "\n" and "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=5)
    assert (process.returncode, out) == (130, "cleaned up\n")


def test_where_nothing_asks_the_first_signal_ends_the_process(start):
    process = start("deaf")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, out) == (143, "cleaned up\n")
    assert "goes on from the last checkpoint" in err
