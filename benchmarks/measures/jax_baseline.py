"""Co-training in JAX, as another peer that the benchmark holds this project against; a program of its own.

Written as JAX is at its best on a processor: pure functions, each compiled once; the state is donated, so that updates
are made in place; calls are dispatched one behind the other, and only the last one is waited for. Gradients of the
attack with respect to the images alone, W / sigma once for all steps of an attack, real and fake images in one pass.

A step of the attack is a compiled function, not the body of a `lax.fori_loop`, nor a training step a `lax.scan` over
its rounds: in the body of a loop XLA's float32 convolutions took two to twenty times as long on a CPU, with JAX 0.4.34
as with 0.12.0 (https://github.com/jax-ml/jax/issues/12868). To unroll the loops takes no less time, and longer to
compile. `peers.start_framework` starts JAX in its faster form.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from measures.jax_networks import Weights, discriminator_weights, generator_weights
from measures.jax_step import Player, Program, State
from measures.shapes import Shapes

PRECISIONS = {"float32": jnp.float32, "mixed_bfloat16": jnp.bfloat16}


@functools.partial(jax.jit, static_argnames=("count", "latent_dim", "num_classes"))
def draw(key: Array, count: int, latent_dim: int, num_classes: int) -> tuple[Array, Array, Array]:
    """Returns the next key, noise [count, latent_dim] and labels [count]."""
    key, for_noise, for_labels = jax.random.split(key, 3)
    return (
        key,
        jax.random.normal(for_noise, (count, latent_dim)),
        jax.random.randint(for_labels, [count], 0, num_classes),
    )


class Peer:
    """The three players, and a step of their training, with the weights of the authors' code for the split loss.

    Attacks, updates, training steps and evaluations wait for what they compute.

    Args:
        shapes: of the networks.
        epsilon: radius of the attack's l-inf ball on [-1, 1].
        steps: of the attack in training.
        learning_rate: of Adam, for both players.
        average_decay: of the moving average of the generator's weights.
        precision: "float32" or "mixed_bfloat16".
    """

    def __init__(
        self,
        shapes: Shapes,
        epsilon: float = 0.0625,
        steps: int = 5,
        learning_rate: float = 2e-4,
        average_decay: float = 0.999,
        precision: str = "float32",
    ):
        self.shapes = shapes
        self.program = program = Program(shapes, epsilon, steps, learning_rate, average_decay, PRECISIONS[precision])
        self._kernels, self._right = jax.jit(program.kernels), jax.jit(program.right)
        self._attack_step, self._evaluation_step = jax.jit(program.attack_step), jax.jit(program.evaluation_step)
        self._update_discriminator, self._update_generator, self._update_average = (
            jax.jit(function, donate_argnums=0)
            for function in (program.update_discriminator, program.update_generator, program.update_average)
        )
        self.key = jax.random.key(0)
        random = np.random.default_rng(0)
        weights = generator_weights(shapes, random)
        statistics = {
            name: (np.zeros(layer["gamma"].shape[-1:], np.float32), np.ones(layer["gamma"].shape[-1:], np.float32))
            for name, layer in weights.items()
            if "gamma" in layer
        }
        self.start(weights, statistics, *discriminator_weights(shapes, random))

    @classmethod
    def of(cls, shapes: Shapes, **options) -> Peer:
        """Returns a peer with networks of these shapes and weights of its own."""
        return cls(shapes, **options)

    @classmethod
    def like(cls, generator, discriminator, **options) -> Peer:
        """Returns a peer with the shapes and the weights of this project's players."""
        peer = cls.of(Shapes.of(generator, discriminator), **options)
        peer.load(generator, discriminator)
        return peer

    def load(self, generator, discriminator):
        """Takes the weights of this project's players, of the same shapes, and all state that goes with them."""
        layers, norms = {"dense": generator.dense, "to_image": generator.to_image}, {"norm": generator.norm}
        for index, block in enumerate(generator.blocks):
            layers.update(convolutions(index, block))
            norms.update({f"block_{index}/{name}": getattr(block, name) for name in ("norm_1", "norm_2")})
        weights = {name: numbers(layer, "kernel", "bias") for name, layer in layers.items()}
        weights.update({name: numbers(norm, "gamma", "beta") for name, norm in norms.items()})
        statistics = {name: (norm.moving_mean.numpy(), norm.moving_variance.numpy()) for name, norm in norms.items()}
        layers = {name: getattr(discriminator, name) for name in ("source_head", "class_head")}
        for index, block in enumerate(discriminator.blocks):
            layers.update(convolutions(index, block))
        judging = {name: numbers(layer, "kernel", "bias") for name, layer in layers.items()}
        self.start(weights, statistics, judging, {name: layer.u.numpy() for name, layer in layers.items()})

    def start(self, generator: Weights, statistics: dict, discriminator: Weights, us: dict):
        """Starts training anew from these arrays of NumPy."""
        # jnp.array copies: what is donated must be nobody else's.
        copy = functools.partial(jax.tree.map, jnp.array)
        self.state = State(
            Player.starting(copy(generator)),
            copy(statistics),
            copy(generator),
            Player.starting(copy(discriminator)),
            copy(us),
            jnp.array(np.zeros([], np.int32)),
        )

    def images(self, images: np.ndarray) -> Array:
        """Images [B, H, W, C] as the methods take them."""
        return jnp.asarray(images)

    def labels(self, labels: np.ndarray) -> Array:
        """Labels [B] as the methods take them."""
        return jnp.asarray(labels)

    def wait(self, result: Array | dict) -> Array | dict:
        """Returns what a method gave; each has waited for the device."""
        return result

    def gpu_memory_mib(self) -> float | None:
        """The most of the GPU's memory that arrays took so far; None on a CPU."""
        statistics = jax.local_devices()[0].memory_stats()
        return statistics["peak_bytes_in_use"] / 2**20 if statistics else None

    def attack(self, images: Array, labels: Array) -> Array:
        """Co-training's attack on images [B, H, W, C], which maximises the discriminator's loss on them."""
        return jax.block_until_ready(self._attack(images, labels))

    def _attack(self, images: Array, labels: Array) -> Array:
        kernels, adversarial = self._kernels(self.state), images
        for _ in range(self.program.attack_steps):
            adversarial = self._attack_step(kernels, adversarial, images, labels)
        return adversarial

    def evaluate_pgd(self, images: Array, labels: Array, steps: int = 20, relative_step_size: float = 0.2) -> Array:
        """Returns which images the class branch still gets right after PGD on its cross-entropy, bool [B]."""
        kernels, adversarial, step_size = self._kernels(self.state), images, relative_step_size * self.program.epsilon
        for _ in range(steps):
            adversarial = self._evaluation_step(kernels, adversarial, images, labels, step_size)
        return jax.block_until_ready(self._right(kernels, adversarial, labels))

    def update_discriminator(self, images: Array, labels: Array, noise: Array, fake_labels: Array) -> Array:
        """An update on real (attacked) images and as many fakes of `noise`; returns the loss."""
        self.state, loss = self._update_discriminator(self.state, images, labels, noise, fake_labels)
        jax.block_until_ready(self.state)
        return loss

    def update_generator(self, noise: Array, labels: Array) -> Array:
        """An update of the generator against the discriminator as it is; returns the loss."""
        self.state, loss = self._update_generator(self.state, noise, labels)
        jax.block_until_ready(self.state)
        return loss

    def inputs(self, count: int) -> tuple[Array, Array]:
        """Noise [count, latent_dim] and labels [count] for the generator."""
        self.key, *inputs = draw(self.key, count, self.shapes.latent_dim, self.shapes.num_classes)
        return tuple(inputs)

    def train_step(self, images: np.ndarray, labels: np.ndarray, steps: int, inputs: Sequence | None = None) -> dict:
        """One update of the generator, then `steps` times an attack and an update of the discriminator.

        Args:
            images: float32 [steps * B, H, W, C] in [-1, 1]; every `steps`-th one goes to the same micro-batch.
            labels: int32 [steps * B].
            steps: discriminator updates.
            inputs: noise and labels of the generator's update and of each of the discriminator's; None draws them.
        """
        inputs = inputs or [self.inputs(len(images) // steps) for _ in range(1 + steps)]
        losses = {}
        self.state, losses["generator_loss"] = self._update_generator(self.state, *inputs[0])
        for index in range(steps):
            batch, classes = self.images(images[index::steps]), self.labels(labels[index::steps])
            adversarial = self._attack(batch, classes)
            self.state, losses["discriminator_loss"] = self._update_discriminator(
                self.state, adversarial, classes, *inputs[1 + index]
            )
        self.state = self._update_average(self.state)
        jax.block_until_ready(self.state)
        return losses


def convolutions(index: int, block) -> dict:
    """The convolutions of a block of this project, by their names here."""
    layers = {name: getattr(block, name) for name in ("conv_1", "conv_2", "conv_shortcut")}
    return {f"block_{index}/{name}": layer for name, layer in layers.items() if layer is not None}


def numbers(layer, *names: str) -> dict[str, np.ndarray]:
    """Weights of a layer of this project."""
    return {name: getattr(layer, name).numpy() for name in names}
