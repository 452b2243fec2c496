"""The commands of tools/serving/README.md and docs/serving.md, run in order against the conformance server."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
# What needs more than Python; deployment_test.py and end_to_end_test.py look at these as far as they can.
NOT_RUN = ("EXPORT=", "kubectl", "docker", "python -m robgan_tf.", "python -m venv", "~/venv", "pip ")


def commands(page):
    """The lines of all bash blocks, continued ones joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture
def place(tmp_path, export_root):
    """A folder with the tools, an export of two versions, photos, and a conformance server that reads models.config."""
    from conformance_server import free_port, wait_for

    shutil.copytree(ROOT / "tools" / "serving", tmp_path / "tools" / "serving")
    shutil.copytree(ROOT / "tests" / "serving", tmp_path / "tests" / "serving")
    shutil.copytree(export_root, tmp_path / "runs" / "digits" / "export")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 256, [20, 30, 3], np.uint8)
        (tmp_path / "photos" / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
    ports = {"8500": str(free_port()), "8501": str(free_port())}
    server = subprocess.Popen(
        [
            sys.executable,
            "tests/serving/conformance_server.py",
            "--model_config_file=tools/serving/config/models.config",
            "--model_config_file_poll_wait_seconds=0.2",
            "--allow_version_labels_for_unavailable_models=true",
            f"--model_base_path={tmp_path / 'runs/digits/export'}",
            f"--port={ports['8500']}",
            f"--rest_api_port={ports['8501']}",
        ],
        cwd=tmp_path,
    )
    try:
        wait_for(f"http://127.0.0.1:{ports['8501']}/v1/models/robgan")
        yield tmp_path, ports, server.pid
    finally:
        server.terminate()
        server.wait(timeout=30)


def run(line, place):
    """Runs one line of a page, in the place and with its ports; returns what it printed."""
    folder, ports, pid = place
    words = shlex.split(line, comments=True)
    for documented, real in ports.items():
        words = [word.replace(f"localhost:{documented}", f"localhost:{real}") for word in words]
    words = [word.replace("$SERVER_PID", str(pid)) for word in words]
    if words[0] == "python":
        words[0] = sys.executable
        if words[1].endswith("classify.py") and not any(word.startswith("--server") for word in words):
            words.append(f"--server=http://localhost:{ports['8501']}")
        small = {"load_check.py": ["--callers=1,4", "--requests=50", "--long_run=200"], "fuzz.py": ["--requests=60"]}
        words += small.get(pathlib.Path(words[1]).name, [])
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def labels(place):
    """The versions that stable and canary name."""
    versions = []
    for name in ("stable", "canary"):
        url = f"http://localhost:{place[1]['8501']}/v1/models/robgan/labels/{name}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            (status,) = json.load(answer)["model_version_status"]
        versions.append(int(status["version"]))
    return tuple(versions)


def until(condition, seconds=60):
    """Waits for the server to have read its configuration and loaded what it names."""
    for _ in range(5 * seconds):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f"not so within {seconds} s")


def runnable(page):
    lines = [line for line in commands(page) if not line.startswith(NOT_RUN)]
    assert all(line.startswith(("python tools/serving/", "curl ")) for line in lines), lines
    return lines


def test_the_readme_leads_to_a_prediction_a_canary_and_a_roll_back(place):
    # Served, loaded beside it, canary, promoted, rolled back.
    expected = iter([(1, 1), (1, 1), (1, 2), (2, 2), (1, 1)])
    for line in runnable("tools/serving/README.md"):
        printed = run(line, place)
        if line.startswith("curl"):
            until(lambda line=line: '"AVAILABLE"' in run(line, place))
        if "versions.py" in line:
            wanted = next(expected)
            until(lambda wanted=wanted: labels(place) == wanted)
        if "classify.py" in line:
            assert len(printed.splitlines()) == 3
    assert next(expected, None) is None


def test_the_commands_of_the_page_on_serving_run(place):
    for line in runnable("docs/serving.md"):
        if "portability.py" in line:
            continue  # checks_test.py runs it, where the extra `onnx` is installed
        run(line, place)
