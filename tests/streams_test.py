"""Tests of robgan_tf.streams: what commands print to closed streams and full disks is in paths_test.py."""

import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]
CODE = """
import os
from robgan_tf import streams
with streams.native_lines_held():
    os.write(2, b"noise\\n")
os.write(2, b"between\\n")
with streams.native_lines_held():
    os.write(2, b"the cause\\n")
    raise SystemExit(3)
"""


def test_what_native_code_writes_is_held_back_and_shown_after_an_error():
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (finished.returncode, finished.stderr) == (3, "between\nthe cause\n")


def test_what_is_printed_to_a_file_stays_in_order(tmp_path):
    code = "import sys\nfrom robgan_tf import streams\nstreams.make_lasting()\n"
    code += "print('first')\nprint('second', file=sys.stderr)"
    with open(tmp_path / "log", "w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, stderr=log, cwd=REPOSITORY, check=True)
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
