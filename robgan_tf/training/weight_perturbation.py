"""Adversarial weight perturbation: gradients at the worst weights near those of the classifier (Wu et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.players.classifiers.class_branch import Classifier
from robgan_tf.training.optimization import assign_in_replica, sum_of_replicas
from robgan_tf.values import checked, number


@gin.configurable("awp")
@checked("awp", gamma=number(above=0))
@dataclasses.dataclass(frozen=True)
class AdversarialWeightPerturbation:
    """min over w of max over v of rho(w + v), ||v_l|| <= gamma ||w_l|| in each layer (Wu et al., NeurIPS 2020, eq. 7).

    v is one step along the gradient of what fine-tuning minimises, on the attacked images, as in the authors' code. It
    moves kernels, not biases and norms. An update takes twice the time of the gradient.

    Attributes:
        gamma: length of v as a share of the weights'; the authors' code for CIFAR-10 has 0.005 with TRADES,
            from its tenth epoch on, and 0.01 with adversarial training.
    """

    gamma: float = 0.005

    def directions(self, weights: Sequence, gradients: Sequence) -> list[tf.Tensor]:
        """Returns v of each weight, gamma ||w|| g / ||g||; 0 for vectors, and where the gradient is 0 or not finite."""
        moves = []
        for weight, gradient in zip(weights, gradients):
            length = tf.norm(gradient)
            fits = tf.math.is_finite(length) & (length > 0) & (weight.shape.rank > 1)
            move = self.gamma * tf.norm(weight) * gradient / length
            moves.append(tf.where(fits, move, tf.zeros_like(gradient)))
        return moves

    def at_worst_weights(self, classifier: Classifier, differentiate: Callable[[], tuple[Sequence, dict]]):
        """Returns this replica's share of the gradients at w + v, and the metrics at w.

        Afterwards the weights are w again, bit by bit, and the statistics of batch norm have moved as by one batch,
        that at w + v.

        Args:
            classifier: the classifier, at w.
            differentiate: returns this replica's share of the gradients of `class_variables`, and of the metrics.
        """
        variables = classifier.class_variables
        states = [weight for weight in classifier.weights if not weight.trainable]
        weights, before = [tf.identity(one) for one in variables], [tf.identity(one) for one in states]
        gradients, metrics = differentiate()
        # What the first pass did to the states is undone, so that the second starts as the first did.
        moves = self.directions(weights, sum_of_replicas(gradients))
        assign_in_replica([*variables, *states], [*map(tf.add, weights, moves), *before])
        gradients, _ = differentiate()
        with tf.control_dependencies(gradients):
            assign_in_replica(variables, weights)
        return gradients, metrics
