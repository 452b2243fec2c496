"""What starts workers on several machines, as far as it goes without them."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from robgan_tf.run.workers import cluster_size

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tools" / "distributed"


def tf_config(*arguments):
    command = [sys.executable, str(FOLDER / "tf_config.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tf_config_names_all_hosts_and_is_what_the_workers_take(monkeypatch):
    config = tf_config("--hosts=a,b,a", "--index=2", "--port=3000").stdout
    assert json.loads(config) == {
        "cluster": {"worker": ["a:3000", "b:3000", "a:3001"]},
        "task": {"type": "worker", "index": 2},
    }
    monkeypatch.setenv("TF_CONFIG", config)
    assert cluster_size() == 3


def test_an_index_without_a_host_is_refused():
    answer = tf_config("--hosts=a,b", "--index=2")
    assert answer.returncode == 2 and "the index is from 0 to 1" in answer.stderr.splitlines()[-1]


@pytest.fixture
def worker(tmp_path):
    """Runs worker.sh with a Python that is killed as often as told before it does what it is asked to."""

    def run(kills, *flags):
        (tmp_path / "kills").write_text(kills * "x")
        python = tmp_path / "python"
        python.write_text(
            f"#!/bin/sh\n"
            f'if [ "$1" = -m ] && [ -s {tmp_path}/kills ]; then truncate -s -1 {tmp_path}/kills; kill -9 $$; fi\n'
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        command = ["bash", str(FOLDER / "worker.sh"), "localhost", "0", *flags]
        environment = {**os.environ, "PYTHON": str(python), "STARTS": "3"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_worker_that_is_killed_is_started_again_and_ends_with_the_commands_status(worker):
    answer = worker(2, "--gin_file=gin/no_such_file.gin")
    assert answer.returncode == 2 and "no_such_file.gin does not exist" in answer.stderr
    assert answer.stderr.count("ended with status 137, starting again") == 2


def test_a_worker_that_never_comes_up_ends_after_so_many_starts(worker):
    answer = worker(5, "--gin_file=gin/no_such_file.gin")
    assert answer.returncode == 137


def test_the_job_of_kubernetes_gives_each_pod_the_name_that_its_tf_config_has(monkeypatch):
    service, job = yaml.safe_load_all((FOLDER / "job.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    name = job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    script = container["args"][0].split(" && ")[0]
    for index in range(spec["completions"]):
        environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
        script_and_show = ["bash", "-c", f"{script} && echo $TF_CONFIG"]
        shown = subprocess.run(script_and_show, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        config = json.loads(shown.stdout)
        assert config["task"]["index"] == index
        port = container["ports"][0]["containerPort"]
        hosts = [f"{name}-{number}.{pod['subdomain']}:{port}" for number in range(spec["completions"])]
        assert config["cluster"]["worker"] == hosts
