"""What is broken or largest in a stage, and at which rate it learnt: a sentence for the message that ends a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from robgan_tf.training.stage import Stage


def diagnosis(stage: Stage) -> str:
    """Returns sentences on the weights of a stage, and on the optimizer and learning rate of each player."""
    return f"{_weights(stage)} {_rates(stage)}"


def _weights(stage: Stage) -> str:
    broken = []
    norms = {}
    for player, model in stage.players.items():
        for weight in model.trainable_variables:
            norm = float(tf.norm(tf.cast(weight, tf.float32)))
            norms[f"{player}: {weight.name}"] = norm
            if not math.isfinite(norm):
                broken.append(f"{player}: {weight.name}")
    if broken:
        rest = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        return f"Weights that are not finite: {', '.join(broken[:3])}{rest}."
    text = "All weights are finite; the largest norm is {1:.3g} ({0})".format(*max(norms.items(), key=lambda n: n[1]))
    sigmas = stage.layer_sigmas()
    if sigmas:
        text += ", the largest sigma {1:.3g} ({0})".format(*max(sigmas.items(), key=lambda sigma: sigma[1]))
    return text + "."


def _rates(stage: Stage) -> str:
    """The rate that may have been too high; it is that of the last update, the broken one."""
    rates = stage.learning_rates()
    each = []
    for name, optimizer in stage.optimizers.items():
        kind = getattr(optimizer, "inner_optimizer", optimizer).name  # under float16
        each.append(f"{rates[f'{name}_learning_rate']:.3g} ({name}, {kind})")
    return f"Learning rate of the last update: {', '.join(each)}."
