"""docs/serving.md from top to bottom: from a run to a prediction, a canary and the way back, and all that follows."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
# Behind the page's own: a run of a minute, and short checks.
SHORT = {
    "robgan_tf.train": [
        "--gin_param=Generator.base_width = 4",
        "--gin_param=Discriminator.base_width = 4",
        "--gin_param=CoTraining.epochs = 0.5",
        "--gin_param=FineTuning.epochs = 0.5",
        "--gin_param=finetuning/linear.initial = 1e-3",
        "--gin_param=RobustnessEvaluation.epsilons = (0.0, 0.1)",
        "--gin_param=RobustnessEvaluation.test_examples = 40",
        "--gin_param=RobustnessEvaluation.checks = None",
    ],
    "load_check.py": ["--callers=1,4", "--requests=50", "--long_run=200"],
    "fuzz.py": ["--requests=60"],
}
# Versions that stable and canary name after each call of versions.py: served, loaded beside it, canary, promoted, back.
LABELS = [(1, 1), (1, 1), (1, 2), (2, 2), (1, 1)]


def steps():
    """(kind, text) of the Python blocks and of each line of the bash blocks, continued lines joined, in order."""
    for kind, block in re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        lines = [block] if kind == "python" else block.replace("\\\n", " ").splitlines()
        yield from ((kind, line) for line in lines if line.strip())


class Place:
    """A folder with the repository's, and a conformance server in place of the container."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("gin", "tests"):
            (folder / name).symlink_to(ROOT / name)
        # Copied, since versions.py writes into it.
        subprocess.run(["cp", "-r", str(ROOT / "tools"), str(folder / "tools")], check=True)
        from conformance_server import free_port

        self.ports = {"8500": str(free_port()), "8501": str(free_port())}
        self.server = None

    def serve(self):
        """Starts the server."""
        from conformance_server import wait_for

        flags = {
            "model_config_file": "tools/serving/config/models.config",
            "model_config_file_poll_wait_seconds": "0.2",
            "allow_version_labels_for_unavailable_models": "true",
            "model_base_path": self.folder / "runs/digits/export",
            "port": self.ports["8500"],
            "rest_api_port": self.ports["8501"],
        }
        words = [sys.executable, "tests/serving/conformance_server.py"]
        self.server = subprocess.Popen(
            [*words, *(f"--{name}={value}" for name, value in flags.items())], cwd=self.folder
        )
        wait_for(f"http://127.0.0.1:{self.ports['8501']}/v1/models/robgan")

    def run(self, kind, line):
        """Runs one step of the page; returns what it printed."""
        words = [sys.executable, "-c", line] if kind == "python" else shlex.split(line, comments=True)
        for documented, real in self.ports.items():
            words = [word.replace(f"localhost:{documented}", f"localhost:{real}") for word in words]
        if kind == "bash":
            if self.server is not None:
                words = [word.replace("$SERVER_PID", str(self.server.pid)) for word in words]
            if words[0] == "python":
                words[0] = sys.executable
            if words[1].endswith("classify.py") and not any(word.startswith("--server") for word in words):
                words.append(f"--server=http://localhost:{self.ports['8501']}")
            words += [
                more for name, flags in SHORT.items() if any(one.endswith(name) for one in words) for more in flags
            ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def labels(self):
        """The versions that stable and canary name."""
        versions = []
        for name in ("stable", "canary"):
            url = f"http://localhost:{self.ports['8501']}/v1/models/robgan/labels/{name}"
            with urllib.request.urlopen(url, timeout=30) as answer:
                (status,) = json.load(answer)["model_version_status"]
            versions.append(int(status["version"]))
        return tuple(versions)


@pytest.fixture
def place(tmp_path):
    """See `Place`."""
    made = Place(tmp_path)
    yield made
    if made.server is not None:
        made.server.terminate()
        made.server.wait(timeout=30)


def until(condition, seconds=60):
    """Waits for the server to have read its configuration and loaded what it names."""
    for _ in range(5 * seconds):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f"not so within {seconds} s")


def test_the_page_leads_from_a_run_to_a_prediction_a_canary_and_back_and_all_that_follows_runs(place):
    expected = iter(LABELS)
    for kind, line in steps():
        if "docker compose" in line:
            place.serve()
        if re.search(r"  # needs ", line):
            continue
        printed = place.run(kind, line)
        if line.startswith("curl"):
            until(lambda line=line: '"AVAILABLE"' in place.run("bash", line))
        if "versions.py" in line:
            wanted = next(expected)
            if place.server is not None:
                until(lambda wanted=wanted: place.labels() == wanted)
        if "classify.py photos/ " in line:
            assert len(printed.splitlines()) == 3
    assert next(expected, None) is None


def test_what_is_skipped_needs_more_than_python():
    skipped = [line for _, line in steps() if "  # needs " in line]
    assert len(skipped) == 9 and all(
        re.search("docker|kubectl|venv|pip install|portability.py", line) for line in skipped
    ), skipped
