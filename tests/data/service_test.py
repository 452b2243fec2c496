"""Batches from tf.data services: the same as those made here."""

import pathlib
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data import preprocessing
from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.data.service import served_batches
from robgan_tf.data.sources.records import tfrecord_images

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def start_services():
    """Starts services in this process; returns their addresses."""
    running = []

    def start(count):
        service = tf.data.experimental.service
        for _ in range(count):
            dispatcher = service.DispatchServer()
            running.append((service.WorkerServer(service.WorkerConfig(dispatcher.target.split("://")[1])), dispatcher))
        return [dispatcher.target for _, dispatcher in running]

    return start


@pytest.mark.parametrize("kind", ["examples", "records"])
@pytest.mark.parametrize(("services", "workers"), [(1, 1), (2, 1), (2, 2)])
def test_services_make_the_very_batches_of_this_process(start_services, write_records, kind, services, workers):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    if kind == "examples":
        split = Examples(images, np.arange(20, dtype=np.int32))
    else:
        pairs = [(tf.io.encode_jpeg(image).numpy(), number) for number, image in enumerate(images)]
        split = tfrecord_images(str(write_records(8, 20, train=pairs, test=pairs))).train

    def make(count, index):
        options = {"first_step": 1, "steps": 5, "seed": 3, "augment": [preprocessing.random_flip], "noise": 0.01}
        return training_batches(split, 8, workers=count, worker=index, **options)

    addresses = start_services(services)
    for worker in range(workers):
        expected = list(make(workers, worker).as_numpy_iterator())
        served = served_batches(make, addresses, workers, worker)
        assert served.element_spec == make(workers, worker).element_spec
        for (images, labels), (served_images, served_labels) in zip(expected, served.as_numpy_iterator()):
            np.testing.assert_array_equal(images, served_images)
            np.testing.assert_array_equal(labels, served_labels)
        assert len(list(served.take(10))) == 4
        assert served.options().autotune.enabled is False  # see pipelines.untuned


def test_a_service_of_ones_own_process_serves_until_it_is_told_to_end():
    command = [sys.executable, "tools/data_service.py", "--port=0"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode != 0
    process = subprocess.Popen([*command[:2], f"--port={free_port()}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[-1]
        numbers = served_batches(lambda count, index: tf.data.Dataset.range(7).map(lambda n: (n[None],)), [address])
        assert [number.numpy().tolist() for (number,) in numbers] == [[number] for number in range(7)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0 and process.stdout.read() == "SIGTERM: ended\n"
    finally:
        process.kill()


def free_port():
    with socket.socket() as taken:
        taken.bind(("", 0))
        return taken.getsockname()[1]
