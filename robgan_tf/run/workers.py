"""The processes that train together, one on each machine: who writes, what they agree on, how one comes back.

All of them run the same command, with a TF_CONFIG each. The first, the chief, alone reads and writes the run directory;
what it read and decided travels to the others over the network, so that they need not see its disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pickle
import sys
import tempfile
from typing import Callable

import numpy as np
import tensorflow as tf

# What communication raises where another worker is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
# How TF_CONFIG has to look.
_EXAMPLE = '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'
# Bytes that are sent as one.
_CHUNK = 1 << 26


class Workers:
    """The workers of a distribution strategy.

    Its methods must be called by all of them in the same order, as everything that communicates.

    Args:
        strategy: the strategy; None for a process that is alone.

    Attributes:
        count: number of worker processes.
        index: which of them this is, from 0.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.strategy = strategy
        self.count, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            cluster = resolver.cluster_spec().as_dict()
            chiefs = len(cluster.get("chief", ()))
            self.count = chiefs + len(cluster.get("worker", ()))
            self.index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that reads and writes the run directory."""
        return self.index == 0

    def on_chief(self, function: Callable):
        """Calls `function` on the chief alone; all workers return what it returned, or raise what it raised."""
        if self.count == 1:
            return function()
        message = b""
        if self.is_chief:
            try:
                outcome = function(), None
            except Exception as error:
                outcome = None, error
            message = pickle.dumps(outcome)
        result, error = pickle.loads(self._from_chief(message))
        if error is not None:
            raise error
        return result

    def highest(self, *numbers: float) -> tuple[float, ...]:
        """Returns the highest of each of `numbers` among all workers."""
        if self.count == 1:
            return numbers
        table = np.zeros([self.count, len(numbers)])
        table[self.index] = numbers
        return tuple(self._sum(table).max(axis=0).tolist())

    @contextlib.contextmanager
    def copy_of(self, folder: pathlib.Path):
        """Yields, on each worker, a folder with the files of the chief's `folder`: on the chief that folder itself."""
        if self.count == 1:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="robgan_tf_") as copy:
            names = self.on_chief(lambda: [path.name for path in folder.iterdir()])
            for name in names:
                content = self._from_chief((folder / name).read_bytes() if self.is_chief else b"")
                if not self.is_chief:
                    (pathlib.Path(copy) / name).write_bytes(content)
            yield folder if self.is_chief else pathlib.Path(copy)

    def _from_chief(self, message: bytes) -> bytes:
        """Returns the chief's `message` on all workers."""
        size = int(self._sum(np.array(len(message) if self.is_chief else 0)))
        received = []
        for begin in range(0, size, _CHUNK):
            # As int64, which every way of communication takes and adds up exactly.
            chunk = np.zeros(-(-min(size - begin, _CHUNK) // 8) * 8, np.uint8)
            if self.is_chief:
                part = np.frombuffer(message[begin : begin + _CHUNK], np.uint8)
                chunk[: len(part)] = part
            received.append(self._sum(chunk.view(np.int64)).tobytes())
        return b"".join(received)[:size]

    def _sum(self, value: np.ndarray) -> np.ndarray:
        """Returns the sum of all workers' arrays."""
        # The strategy adds up replicas: the first of this worker's has the value, the others zeros.
        first = self.index * self.strategy.num_replicas_in_sync // self.count

        def of_replica(context):
            return tf.constant(value if context.replica_id_in_sync_group == first else np.zeros_like(value))

        values = self.strategy.experimental_distribute_values_from_function(of_replica)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()


@contextlib.contextmanager
def rejoining(command: list[str]):
    """Within it, a worker that loses another starts itself anew, to wait for the other and go on together with it.

    The process is replaced, since a worker that lost another can't communicate any more. What has to be closed must be
    closed before the error comes here.

    Args:
        command: what this process was started with.
    """
    try:
        yield
    except LOST as error:
        if cluster_size() == 1:
            raise
        lost = type(error).__name__
        print(f"lost another worker ({lost}): starting anew, to wait for it", file=sys.stderr, flush=True)
        os.execv(command[0], command)


def cluster_size() -> int:
    """Returns the number of workers that TF_CONFIG in the environment names, 1 where there is none.

    Raises:
        ValueError: for a TF_CONFIG that can't be used.
    """
    config = os.environ.get("TF_CONFIG")
    if not config:
        return 1
    try:
        content = json.loads(config)
        cluster = content.get("cluster", {})
        unknown = set(cluster) - {"chief", "worker"}
        if unknown:
            raise ValueError(f"there is no use for {', '.join(sorted(unknown))}")
        workers = sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
        if workers > 1:
            task = content["task"]
            cluster[task["type"]][int(task["index"])]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG must look like {_EXAMPLE}; got {config!r} ({error}).") from error
    return max(workers, 1)
