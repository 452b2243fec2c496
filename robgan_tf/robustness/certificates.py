"""What all certificates report: accuracy that no attack can undercut, beside the accuracy that attacks have left."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.data.preprocessing import to_pixel_range
from robgan_tf.players.attacker.threat_model import ThreatModel, epsilon_255
from robgan_tf.robustness.intervals import wilson


def certified_block(radii: np.ndarray, ball: ThreatModel, image_shape: tuple[int, int, int]) -> dict:
    """Returns what certified l2 radii mean in a threat model, for the report.

    A change of l-inf norm e has an l2 norm of up to e sqrt(H W C), one of l1 norm e of up to e. So the radius is
    divided by sqrt(H W C) in l-inf, and stays as it is in l1.

    Args:
        radii: l2 radius of each image on the scale [-1, 1], float64 [N]; 0 where the answer is wrong, or there is none.
        ball: the threat model.
        image_shape: (H, W, C).
    """
    longest = {"linf": math.sqrt(math.prod(image_shape)), "l2": 1.0, "l1": 1.0}[ball.norm]
    inside = radii / longest
    certified = int(np.sum(inside > ball.epsilon))
    right = inside[inside > 0]
    return {
        "norm": ball.norm,
        "epsilon": float(ball.epsilon),
        "epsilon_255": epsilon_255(ball.epsilon),
        "examples": len(radii),
        "accuracy": certified / len(radii),
        "interval": wilson(certified, len(radii)),
        "right": len(right) / len(radii),
        "median_radius": float(np.median(right)) if len(right) else 0.0,
        "largest_radius": float(right.max()) if len(right) else 0.0,
        "median_l2_radius": float(np.median(right)) * longest if len(right) else 0.0,
        "vacuous": certified == 0,
    }


def batches_of(examples: Examples, batch_size: int) -> Iterator[tf.Tensor]:
    """Yields images float32 [b, H, W, C] in [-1, 1], each once and in order, b at most `batch_size`."""
    for first in range(0, len(examples), batch_size):
        yield to_pixel_range(examples.images[first : first + batch_size])
