"""How far a stage is: in a terminal and in a file."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

# A stage of 40 steps, with an entry at each tenth.
SCRIPT = """
import time
from robgan_tf.run import progress

progress._LINE_EVERY = 0.0

class Stage:
    name_of_stage, total_steps, steps_done = "cotraining", 40, 0
    headlines = {"class_accuracy": "training right", "loss": "loss"}

shown = progress.Progress(Stage())
for step in range(1, 41):
    time.sleep(0.005)
    shown.advance(step)
    if step % 10 == 0:
        shown.show({"class_accuracy": step / 40, "loss": 2.5, "other": 1.0})
shown.close()
"""


def test_where_there_is_no_terminal_it_writes_plain_lines():
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert finished.stdout == "" and "\r" not in finished.stderr and "\x1b" not in finished.stderr
    first, *_, last = finished.stderr.splitlines()
    assert first.startswith("cotraining: step 10 of 40 (25 %), ") and "steps/s, 00:0" in first
    assert first.endswith("left; training right 25 %, loss 2.5")
    assert last.startswith("cotraining: step 40 of 40 (100 %)") and "00:00 left" in last


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_in_a_terminal_it_is_a_bar_with_rate_time_left_and_headlines():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux: the other end is closed
        pass
    assert process.wait() == 0
    bar = shown.decode().strip().split("\r")[-1]
    assert "cotraining: 100%" in bar and "40/40" in bar and "step/s" in bar
    assert "training right 100 %, loss 2.5" in bar
