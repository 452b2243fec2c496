"""Makes training batches for trainers on other machines: a tf.data service.

    python tools/data_service.py --port=5000

on a machine with processors to spare and the data at the same paths as on the trainers, and there

    python -m robgan_tf.train --gin_file=... --gin_param='Upkeep.data_services = ("grpc://thathost:5000",)'

It needs TensorFlow alone. Ctrl-C or SIGTERM ends it; trainers wait for it to come back.
"""

from __future__ import annotations

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import tensorflow as tf
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("port", 5000, "Port to listen on.", lower_bound=1, upper_bound=65535)

_service = tf.data.experimental.service


def main(argv):
    del argv
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the service's threads start
    # A dispatcher with exactly one worker: a second one would make every batch again.
    dispatcher = _service.DispatchServer(_service.DispatcherConfig(port=FLAGS.port))
    worker = _service.WorkerServer(_service.WorkerConfig(dispatcher_address=dispatcher.target.split("://")[1]))
    print(f"making batches at {dispatcher.target}", flush=True)
    number = signal.sigwait(signals)
    del worker, dispatcher
    print(f"{signal.Signals(number).name}: ended", flush=True)


if __name__ == "__main__":
    app.run(main)
