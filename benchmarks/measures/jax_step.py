"""Co-training as pure functions of its state in JAX; `jax_baseline.Peer` compiles and calls them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from measures.jax_networks import Weights, generate, judge, normalized, power_iteration
from measures.shapes import Shapes

BETA_2, ADAM_EPSILON, MOMENTUM = 0.9, 1e-7, 0.9


def source_loss(logits: Array, real: bool) -> Array:
    """-log P(real) or -log P(fake) of each image."""
    return jax.nn.softplus(-logits if real else logits)


def class_loss(logits: Array, labels: Array) -> Array:
    """Cross-entropy of each image."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


class Player(NamedTuple):
    """Weights, Adam's average of squared gradients for each, and the number of updates.

    With beta_1 = 0, Adam's average of gradients is the gradient itself, and needs no memory.
    """

    weights: Weights
    moments: Weights
    updates: Array

    @classmethod
    def starting(cls, weights: Weights) -> Player:
        """Returns a player that was not updated yet."""
        # From NumPy: JAX would compile a program for each shape.
        moments = jax.tree.map(lambda weight: jnp.array(np.zeros(weight.shape, np.float32)), weights)
        return cls(weights, moments, jnp.array(np.zeros([], np.int32)))

    def updated(self, gradients: Weights, rate: float) -> Player:
        """Returns the player after an update by Adam."""
        updates = self.updates + 1
        rate *= jnp.sqrt(1 - BETA_2**updates)
        moments = jax.tree.map(lambda m, g: BETA_2 * m + (1 - BETA_2) * jnp.square(g), self.moments, gradients)
        weights = jax.tree.map(
            lambda w, m, g: w - rate * g / (jnp.sqrt(m) + ADAM_EPSILON), self.weights, moments, gradients
        )
        return Player(weights, moments, updates)


class State(NamedTuple):
    """All that training changes.

    Attributes:
        generator: the generator.
        statistics: running mean and variance of each of its norms.
        average: moving average of its weights.
        discriminator: the discriminator.
        us: u of each of its layers.
        steps: training steps done.
    """

    generator: Player
    statistics: dict
    average: Weights
    discriminator: Player
    us: dict[str, Array]
    steps: Array


@dataclasses.dataclass(frozen=True)
class Program:
    """The parts of training as pure functions; see `Peer` for the settings."""

    shapes: Shapes
    epsilon: float
    attack_steps: int
    learning_rate: float
    average_decay: float
    dtype: type

    def kernels(self, state: State) -> Weights:
        """The discriminator's W / sigma."""
        return normalized(state.discriminator.weights, state.us, self.dtype)

    def verdict(self, state: State, images: Array) -> tuple[Array, Array]:
        """The discriminator's logits."""
        return judge(self.kernels(state), images, self.shapes)

    def generate(self, weights: Weights, noise: Array, labels: Array) -> tuple[Array, dict]:
        """Images, and statistics of their batch."""
        return generate(weights, noise, labels, self.shapes, self.dtype)

    def step(self, objective, adversarial: Array, images: Array, step_size) -> Array:
        """A step of PGD in the l-inf ball around `images`, on a function that takes images and returns a number."""
        low, high = (jnp.clip(images + radius, -1, 1) for radius in (-self.epsilon, self.epsilon))
        return jnp.clip(adversarial + step_size * jnp.sign(jax.grad(objective)(adversarial)), low, high)

    def attack_step(self, kernels: Weights, adversarial: Array, images: Array, labels: Array) -> Array:
        """A step of co-training's attack, which maximises the discriminator's loss on the images."""

        def objective(adversarial):
            source, classes = judge(kernels, adversarial, self.shapes)
            return 0.5 * jnp.sum(source_loss(source, real=True) + class_loss(classes, labels))

        return self.step(objective, adversarial, images, self.epsilon / self.attack_steps)

    def evaluation_step(self, kernels: Weights, adversarial: Array, images: Array, labels: Array, step_size) -> Array:
        """A step of PGD on the class branch's cross-entropy."""

        def objective(adversarial):
            return jnp.sum(class_loss(judge(kernels, adversarial, self.shapes)[1], labels))

        return self.step(objective, adversarial, images, step_size)

    def right(self, kernels: Weights, images: Array, labels: Array) -> Array:
        """Which images the class branch gets right, bool [B]."""
        return judge(kernels, images, self.shapes)[1].argmax(1) == labels

    def update_discriminator(
        self, state: State, images: Array, labels: Array, noise: Array, fake_labels: Array
    ) -> tuple[State, Array]:
        """An update on real (attacked) images and as many fakes of `noise`; returns the loss, too."""
        fakes, statistics = self.generate(state.generator.weights, noise, fake_labels)
        us = power_iteration(state.discriminator.weights, state.us)

        def objective(weights):
            both = jnp.concatenate([images, fakes])
            source, classes = judge(normalized(weights, us, self.dtype), both, self.shapes)
            (real, fake), classes = jnp.split(source, 2), classes[: len(images)]
            losses = 0.5 * source_loss(real, real=True) + source_loss(fake, real=False)
            return jnp.mean(losses + 0.5 * class_loss(classes, labels))

        loss, gradients = jax.value_and_grad(objective)(state.discriminator.weights)
        discriminator = state.discriminator.updated(gradients, self.learning_rate)
        statistics = moved(state.statistics, statistics, MOMENTUM)
        return state._replace(discriminator=discriminator, us=us, statistics=statistics), loss

    def update_generator(self, state: State, noise: Array, labels: Array) -> tuple[State, Array]:
        """An update of the generator against the discriminator as it is; returns the loss, too."""
        kernels = self.kernels(state)

        def objective(weights):
            fakes, statistics = self.generate(weights, noise, labels)
            source, classes = judge(kernels, fakes, self.shapes)
            return 0.5 * jnp.mean(source_loss(source, real=True) + class_loss(classes, labels)), statistics

        (loss, statistics), gradients = jax.value_and_grad(objective, has_aux=True)(state.generator.weights)
        generator = state.generator.updated(gradients, self.learning_rate)
        return state._replace(generator=generator, statistics=moved(state.statistics, statistics, MOMENTUM)), loss

    def update_average(self, state: State) -> State:
        """Moves the averages of the generator's weights towards them, at the end of a training step."""
        decay = jnp.minimum(self.average_decay, (1 + state.steps) / (10 + state.steps))
        average = moved(state.average, state.generator.weights, decay)
        return state._replace(average=average, steps=state.steps + 1)


def moved(averages, values, decay):
    """Moves averages towards values."""
    return jax.tree.map(lambda average, value: decay * average + (1 - decay) * value, averages, values)
