"""Calls a model server on this machine from many threads, checks every answer, and measures.

    python tools/serving/load_check.py --saved_model=runs/digits/export/1 --server=grpc://localhost:8500 \
      --server_pid=1234 --out=load.json

For 1 to 64 parallel callers: errors, percentiles of the latency and throughput, beside calls of the bare SavedModel
in this process. Then a long run, in which the server's memory is watched. Every answer is compared with that of the
SavedModel for the image that was sent. A server that is not on the loopback is refused. Exit status: 0 no error, all
answers right and memory flat; 1 otherwise; 2 wrong flags.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import platform
import sys
import threading
import time
import urllib.parse

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import classify
import numpy as np
import tensorflow as tf

# Largest accepted |served - SavedModel| of a score.
TOLERANCE = 1e-5
# Growth of the server's resident memory over the second half of the long run that is put down to the allocator.
FLAT = 0.02
IMAGES = 64
BARE_CALLS = 500
# The server's first requests fill pools and caches: threads, arenas.
SETTLING = 0.1


def make_images(image_shape) -> list[bytes]:
    """PNG files of the network's size, all different."""
    random = np.random.default_rng(0)
    return [tf.io.encode_png(random.integers(0, 256, image_shape, np.uint8)).numpy() for _ in range(IMAGES)]


def percentiles(seconds) -> dict:
    """Milliseconds."""
    points = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: round(1000 * float(np.percentile(seconds, point)), 2) for name, point in points.items()}


def measure_bare(signature, images) -> dict:
    """The SavedModel called in this process, an image at a time."""
    seconds = []
    for image in itertools.islice(itertools.cycle(images), BARE_CALLS):
        start = time.perf_counter()
        signature(encoded=tf.constant([image]))["scores"].numpy()
        seconds.append(time.perf_counter() - start)
    return {
        "requests": BARE_CALLS,
        "requests_per_second": round(BARE_CALLS / sum(seconds), 1),
        "ms": percentiles(seconds),
    }


def call(make_predict, images, expected, callers: int, requests: int, after_each=lambda done: None) -> dict:
    """`requests` requests of an image each, by `callers` threads."""
    local, lock, done = threading.local(), threading.Lock(), itertools.count(1)
    seconds, errors, differences = [], [], []

    def one(number):
        if not hasattr(local, "predict"):
            local.predict = make_predict()
        row = number % len(images)
        start = time.perf_counter()
        try:
            ((_, scores),) = local.predict([images[row]])
        except (classify.Refused, classify.Unavailable, classify.NotServed) as error:
            with lock:
                errors.append(str(error))
            return
        passed, difference = time.perf_counter() - start, float(np.abs(np.array(scores) - expected[row]).max())
        with lock:
            seconds.append(passed)
            differences.append(difference)
            after_each(next(done))

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        for _ in pool.map(one, range(requests)):
            pass
    passed = time.perf_counter() - start
    return {
        "callers": callers,
        "requests": requests,
        "errors": len(errors),
        "first_errors": errors[:3],
        "largest_difference": max(differences, default=None),
        "requests_per_second": round(len(seconds) / passed, 1),
        "ms": percentiles(seconds) if seconds else None,
    }


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"--server_pid={pid} is no running process")


def watch_memory(pid: int, make_predict, images, expected, callers: int, requests: int) -> dict:
    """A long run, with the server's resident memory at 20 points."""
    every, samples = max(1, requests // 20), []

    def sample(done):
        if done % every == 0:
            samples.append((done, round(resident_mib(pid), 1)))

    result = call(make_predict, images, expected, callers, requests, sample)
    settled = [mib for done, mib in samples if done >= SETTLING * requests]
    half = len(settled) // 2
    growth = np.mean(settled[half:]) / np.mean(settled[:half]) - 1
    return {**result, "resident_mib": samples, "growth": round(float(growth), 4), "flat": bool(growth <= FLAT)}


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saved_model", required=True, help="folder of the version that is served")
    parser.add_argument("--server", default="http://localhost:8501", help="http://host:port or grpc://host:port")
    parser.add_argument("--model", default="robgan")
    parser.add_argument("--server_pid", type=int, help="process whose memory is watched; none without it")
    parser.add_argument("--server_is", default="unknown", help="what the server is, for the report")
    parser.add_argument("--callers", default="1,2,4,8,16,32,64", help="numbers of parallel callers, at most 64")
    parser.add_argument("--requests", type=int, default=1000, help="requests for each number of callers")
    parser.add_argument("--long_run", type=int, default=20_000, help="requests while the memory is watched")
    parser.add_argument("--out", help="JSON file of the result")
    flags = parser.parse_args(arguments)
    flags.callers = [int(number) for number in flags.callers.split(",")]
    if not all(1 <= number <= 64 for number in flags.callers):
        parser.error(f"--callers must be 1 to 64 each, got {flags.callers}")
    if urllib.parse.urlsplit(flags.server).hostname not in ("localhost", "127.0.0.1", "::1"):
        parser.error(f"--server must be on this machine (localhost): this is no load for others; got {flags.server}")
    if not os.path.exists(os.path.join(flags.saved_model, "saved_model.pb")):
        parser.error(f"--saved_model={flags.saved_model} has no saved_model.pb")
    return flags


def main(arguments=None) -> int:
    flags = parse(arguments)
    loaded = tf.saved_model.load(flags.saved_model)
    images = make_images(tuple(loaded.image_shape().numpy()))
    signature = loaded.signatures["encoded"]
    expected = signature(encoded=tf.constant(images))["scores"].numpy()
    protocol = classify.grpc if flags.server.startswith("grpc") else classify.rest

    def make_predict():
        return protocol(flags.server, flags.model, None, None, 60)

    call(make_predict, images, expected, 4, 100)  # what is slow the first time is not measured
    measure_bare(signature, images)
    result = {
        "server": flags.server.partition("://")[0],
        "server_is": flags.server_is,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "tensorflow": tf.__version__,
        "bare": measure_bare(signature, images),
        "levels": [],
    }
    print(f"bare SavedModel: {result['bare']['requests_per_second']} requests/s, {result['bare']['ms']} ms", flush=True)
    for callers in flags.callers:
        level = call(make_predict, images, expected, callers, flags.requests)
        result["levels"].append(level)
        rate, errors = level["requests_per_second"], level["errors"]
        print(f"{callers:3} callers: {rate} requests/s, {level['ms']} ms, {errors} errors", flush=True)
    runs = list(result["levels"])
    if flags.server_pid:
        memory = watch_memory(flags.server_pid, make_predict, images, expected, 8, flags.long_run)
        result["memory"] = memory
        runs.append(memory)
        first, last = memory["resident_mib"][0][1], memory["resident_mib"][-1][1]
        print(f"memory over {flags.long_run} requests: {first} to {last} MiB, flat: {memory['flat']}", flush=True)
    wrong = [run for run in runs if run["errors"] or not (run["largest_difference"] or 0) <= TOLERANCE]
    result["passed"] = not wrong and result.get("memory", {"flat": True})["flat"]
    if flags.out:
        pathlib.Path(flags.out).write_text(json.dumps(result, indent=1) + "\n")
    print("passed" if result["passed"] else f"FAILED: {[run['first_errors'] for run in wrong]}")
    return int(not result["passed"])


if __name__ == "__main__":
    sys.exit(main())
