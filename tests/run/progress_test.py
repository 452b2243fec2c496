"""How far a stage is: in a terminal and in a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from robgan_tf.run.progress import fitting_line

# A stage of 40 steps, with an entry at each tenth.
SCRIPT = """
import time
from robgan_tf.run import progress
from robgan_tf.run.metrics import SHARE, Metric, declare

progress._LINE_EVERY = 0.0
declare(Metric("class_accuracy", "train accuracy", "Accuracy", unit=SHARE))

class Stage:
    name_of_stage, total_steps, steps_done = "cotraining", 40, 0
    headlines = ("class_accuracy", "loss")

shown = progress.Progress(Stage())
for step in range(1, 41):
    time.sleep(0.005)
    shown.advance(step)
    if step % 10 == 0:
        shown.show({"class_accuracy": step / 40, "loss": 2.5, "other": 1.0})
    with shown.interrupted():
        pass
shown.close()
print("done")
"""
HEADLINES = ["train accuracy 93 %", "fakes detected 80 %", "fakes of the requested class 75 %"]


def in_a_terminal(columns, **environment):
    """What the script writes to a terminal of so many columns, line by line, and what it answers on standard output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, **environment}
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux: the other end is closed
        pass
    answer, _ = process.communicate(timeout=60)
    assert (process.returncode, answer) == (0, b"done\n")
    return [line.replace("\x1b[A", "") for line in re.split(r"[\r\n]+", shown.decode("ascii")) if line.strip()]


def test_where_there_is_no_terminal_it_writes_plain_lines():
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert finished.stdout == "done\n" and "\r" not in finished.stderr and "\x1b" not in finished.stderr
    first, second, *_, last = finished.stderr.splitlines()
    assert first == "cotraining: 0 of 40 steps, compiling the first step"
    assert re.fullmatch(
        r"cotraining: 10 of 40 steps \(25 %\), \d+(\.\d+)? steps/s, \d s left; train accuracy 25 %, loss 2.5", second
    )
    assert last.startswith("cotraining: 40 of 40 steps (100 %)") and "0 s left; train accuracy 100 %" in last


def test_in_a_terminal_it_is_a_bar_with_rate_time_left_and_headlines():
    lines = in_a_terminal(140)
    assert re.match(r"cotraining 0 % \[\.+\], step 0 of 40, compiling the first step\s*$", lines[0])
    assert re.match(r"cotraining 100 % \[#+\], step 40 of 40, .* steps/s, 0 s left; train accuracy 100 %", lines[-1])
    assert "loss 2.5" in lines[-1]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_line_is_wider_than_the_terminal_whose_characters_are_ascii(columns):
    lines = in_a_terminal(columns, PYTHONIOENCODING="ascii", LC_ALL="C", TERM="dumb")
    assert lines[-1].startswith("cotraining 100 %")
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("columns", [20, 25, 30, 40, 60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("rate", [None, 0.031, 3.214])
def test_a_line_holds_whole_parts_alone_the_most_important_first(columns, rate):
    line = fitting_line("cotraining", 120, 2400, rate, HEADLINES if rate else [], columns)
    assert len(line) < columns
    rest = {None: "compiling the first step", 0.031: "20 h 25 min left", 3.214: "11 min 49 s left"}[rate]
    parts = ["5 %", "cotraining", rest, *(HEADLINES if rate else []), "step 120 of 2400"]
    parts += [f"{rate:.3g} steps/s"] if rate else []
    shown = re.split(r", |; ", re.sub(r" \[[#.]+\]", "", line).replace("cotraining 5 %", "cotraining, 5 %"))
    # Those that are shown are the first of `parts`, and each is whole.
    assert sorted(shown) == sorted(parts[: len(shown)])
    assert (len(shown) == len(parts)) == (columns >= 160 or not rate and columns >= 60)


def test_a_name_that_does_not_fit_goes_and_a_width_that_is_unknown_is_80():
    assert fitting_line("x" * 40, 1, 2, 1.0, [], 20) == "50 %"
    wide = fitting_line("cotraining", 120, 2400, 3.2, HEADLINES, None)
    assert wide == fitting_line("cotraining", 120, 2400, 3.2, HEADLINES, 0)
    assert wide == fitting_line("cotraining", 120, 2400, 3.2, HEADLINES, 80)


@pytest.mark.parametrize("how", ["2>&-", "2> >(read line; exit)", "2>/dev/full"])
def test_a_standard_error_that_is_closed_or_full_does_not_end_the_run(how):
    command = ["bash", "-c", f'"$0" -c "$1" {how}', sys.executable, SCRIPT]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "done\n")


def test_a_terminal_that_is_gone_does_not_end_the_run():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    answer, _ = process.communicate(timeout=60)
    assert (process.returncode, answer) == (0, b"done\n")
