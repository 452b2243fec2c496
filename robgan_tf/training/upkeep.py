"""Logging, checkpoint and rollback settings of a run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import gin

from robgan_tf.bindings import may_change
from robgan_tf.values import checked, number, whole


@gin.configurable
@may_change()
@checked(
    log_every=whole(1),
    checkpoint_every=whole(1),
    checkpoint_minutes=number(above=0),
    keep_checkpoints=whole(1),
    keep_every=whole(0),
    max_rollbacks=whole(0),
)
@dataclasses.dataclass(frozen=True)
class Upkeep:
    """Logging, checkpoint and rollback settings, which may change between two starts of a run.

    They have no influence on what is learnt, unless a step breaks: then they say what the run goes back to.

    Attributes:
        log_every: steps between two entries of the metrics.
        checkpoint_every: steps between two checkpoints.
        checkpoint_minutes: a checkpoint comes after so many minutes without one, too.
        keep_checkpoints: number of newest checkpoints of each stage that are kept.
        keep_every: checkpoints at multiples of so many steps are kept, too; 0 for none.
        max_rollbacks: how often a stage goes back to its last checkpoint after a step that is not finite, before it
            gives up.
        data_services: addresses of tf.data services that make the training batches, ("grpc://host:port", ...), see
            `tools/data_service.py`; none for this process.

    Raises:
        ValueError: for a number out of its range, or an invalid address.
    """

    log_every: int = 50
    checkpoint_every: int = 500
    checkpoint_minutes: float = 20.0
    keep_checkpoints: int = 2
    keep_every: int = 0
    max_rollbacks: int = 3
    data_services: Sequence[str] = ()

    def __post_init__(self):
        services = self.data_services
        if isinstance(services, str) or not all(re.fullmatch(r"\w+://[^\s/]+:\d+", service) for service in services):
            raise ValueError(f'Upkeep.data_services must be like ("grpc://host:5000",), got {services!r}.')
