"""The generator and the discriminator in JAX, as pure functions of their weights.

Images and feature maps are float [B, H, W, C]. The weights of a network are a dict of layers by name, each a dict of
float32 arrays: kernels [height, width, inputs, outputs] or [inputs, outputs], biases, and the batch norms' gamma, beta.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from measures.shapes import BOTTOM, Shapes

TINY = 1e-12  # smaller norms are taken for zero
EPSILON = 2e-5  # of batch norm
Weights = dict[str, dict[str, Array]]


def convolve(images: Array, layer: dict[str, Array], dtype) -> Array:
    """A convolution of stride 1 to the same size, in `dtype`."""
    images = lax.conv_general_dilated(
        images.astype(dtype),
        layer["kernel"].astype(dtype),
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return images + layer["bias"].astype(dtype)


# ---- the generator


def batch_norm(images: Array, gamma: Array, beta: Array, dtype) -> tuple[Array, tuple[Array, Array]]:
    """Returns the normalised images in `dtype`, and the mean and variance [C] of the batch; all arithmetic is float32.

    Args:
        images: [B, H, W, C].
        gamma: [C], or [B, 1, 1, C] of each image's class.
        beta: as gamma.
        dtype: of the result.
    """
    images = images.astype(jnp.float32)
    mean = images.mean((0, 1, 2))
    variance = jnp.square(images - mean).mean((0, 1, 2))
    images = (images - mean) * (lax.rsqrt(variance + EPSILON) * gamma) + beta
    return images.astype(dtype), (mean, variance)


def upsample(images: Array) -> Array:
    """Doubles the sides, by the nearest neighbour."""
    batch, height, width, channels = images.shape
    images = jnp.broadcast_to(images[:, :, None, :, None, :], [batch, height, 2, width, 2, channels])
    return images.reshape(batch, 2 * height, 2 * width, channels)


def generate(weights: Weights, noise: Array, labels: Array, shapes: Shapes, dtype) -> tuple[Array, dict]:
    """Noise [B, latent_dim] and labels [B] -> images float32 in [-1, 1], and each norm's (mean, variance).

    A block: cBN, ReLU, (up), conv3x3, cBN, ReLU, conv3x3, plus the shortcut conv1x1, (up).
    """
    statistics = {}

    def norm_relu(images, name):
        layer = weights[name]
        gamma, beta = layer["gamma"], layer["beta"]
        if gamma.ndim == 2:
            gamma, beta = (table[labels][:, None, None, :] for table in (gamma, beta))
        images, statistics[name] = batch_norm(images, gamma, beta, dtype)
        return jax.nn.relu(images)

    dense = weights["dense"]
    images = noise.astype(dtype) @ dense["kernel"].astype(dtype) + dense["bias"].astype(dtype)
    images = images.reshape(-1, BOTTOM, BOTTOM, shapes.bottom)
    for index, (_, up) in enumerate(shapes.generator):
        resample = upsample if up else lambda images: images
        block = f"block_{index}"
        hidden = resample(norm_relu(images, f"{block}/norm_1"))
        hidden = convolve(hidden, weights[f"{block}/conv_1"], dtype)
        hidden = convolve(norm_relu(hidden, f"{block}/norm_2"), weights[f"{block}/conv_2"], dtype)
        shortcut = weights.get(f"{block}/conv_shortcut")
        images = hidden + resample(images if shortcut is None else convolve(images, shortcut, dtype))
    images = convolve(norm_relu(images, "norm"), weights["to_image"], dtype)
    return jnp.tanh(images.astype(jnp.float32)), statistics


# ---- the discriminator


def matrix(kernel: Array) -> Array:
    """A kernel as [rest, outputs]."""
    return kernel.reshape(-1, kernel.shape[-1])


def norm(vector: Array) -> Array:
    """The l2 norm, at least `TINY`, with a gradient also where it is zero."""
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(vector)), TINY**2))


def power_iteration(weights: Weights, us: dict[str, Array]) -> dict[str, Array]:
    """Returns the vectors u [outputs] of all layers after one step."""

    def step(kernel, u):
        v = kernel @ u
        u = (v / norm(v)) @ kernel
        return u / norm(u)

    return {name: step(matrix(weights[name]["kernel"]), u) for name, u in us.items()}


def normalized(weights: Weights, us: dict[str, Array], dtype) -> Weights:
    """W / sigma of every layer, with its bias: of the convolutions in `dtype`, of the heads in float32.

    sigma = |Wu| (Miyato et al., ICLR 2018): its gradient is that of v'Wu with u and v fixed.
    """

    def normalize(layer, u):
        kernel = layer["kernel"]
        kernel = kernel / norm(matrix(kernel) @ u)
        return {**layer, "kernel": kernel.astype(dtype) if kernel.ndim == 4 else kernel}

    return {name: normalize(weights[name], u) for name, u in us.items()}


def downsample(images: Array) -> Array:
    """Halves the sides, by the mean of 2 x 2 pixels."""
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def judge(kernels: Weights, images: Array, shapes: Shapes) -> tuple[Array, Array]:
    """Images -> logits of "real" [B] and of the classes [B, K], float32, with kernels as `normalized` returns them.

    A block: ReLU, conv3x3, ReLU, conv3x3, (pool), plus the shortcut (pool), conv1x1; the first has no first ReLU.
    """
    dtype = kernels["block_0/conv_1"]["kernel"].dtype
    for index, (_, down) in enumerate(shapes.discriminator):
        resample = downsample if down else lambda images: images
        block = f"block_{index}"
        hidden = convolve(jax.nn.relu(images) if index else images, kernels[f"{block}/conv_1"], dtype)
        hidden = convolve(jax.nn.relu(hidden), kernels[f"{block}/conv_2"], dtype)
        shortcut, images = kernels.get(f"{block}/conv_shortcut"), resample(images)
        images = resample(hidden) + (images if shortcut is None else convolve(images, shortcut, dtype))
    features = jax.nn.relu(images).astype(jnp.float32).sum((1, 2))
    source, classes = (
        features @ kernels[head]["kernel"] + kernels[head]["bias"] for head in ("source_head", "class_head")
    )
    return source[:, 0], classes


# ---- weights to start with, in NumPy: JAX would compile a program for each shape


def generator_weights(shapes: Shapes, random: np.random.Generator) -> Weights:
    """Returns weights of a generator."""
    weights = {"dense": dense(random, shapes.latent_dim, BOTTOM**2 * shapes.bottom)}
    width = shapes.bottom
    for index, (filters, up) in enumerate(shapes.generator):
        block = f"block_{index}"
        for norm_name, channels in (("norm_1", width), ("norm_2", filters)):
            weights[f"{block}/{norm_name}"] = affine(shapes.num_classes, channels)
        weights.update(convolutions(random, block, width, filters, filters, up or width != filters))
        width = filters
    weights["norm"] = affine(width)
    weights["to_image"] = dense(random, 3, 3, width, shapes.channels)
    return weights


def discriminator_weights(shapes: Shapes, random: np.random.Generator) -> tuple[Weights, dict]:
    """Returns weights of a discriminator, and u of each layer."""
    weights, width = {}, shapes.channels
    for index, (filters, down) in enumerate(shapes.discriminator):
        shortcut = not index or down or width != filters
        hidden = width if index else filters
        weights.update(convolutions(random, f"block_{index}", width, hidden, filters, shortcut))
        width = filters
    weights["source_head"] = dense(random, width, 1)
    weights["class_head"] = dense(random, width, shapes.num_classes)
    us = {name: random.standard_normal(len(layer["bias"]), np.float32) for name, layer in weights.items()}
    return weights, {name: u / np.linalg.norm(u) for name, u in us.items()}


def convolutions(random, block: str, inputs: int, hidden: int, outputs: int, shortcut: bool) -> Iterator[tuple]:
    """Yields the convolutions of a block by name."""
    yield f"{block}/conv_1", dense(random, 3, 3, inputs, hidden)
    yield f"{block}/conv_2", dense(random, 3, 3, hidden, outputs)
    if shortcut:
        yield f"{block}/conv_shortcut", dense(random, 1, 1, inputs, outputs)


def dense(random, *shape: int) -> dict[str, np.ndarray]:
    """Kernel (Glorot and Bengio, AISTATS 2010) and bias of a layer."""
    *rest, inputs, outputs = shape
    area = int(np.prod(rest))
    limit = (6 / (area * (inputs + outputs))) ** 0.5
    kernel = random.uniform(-limit, limit, shape).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros(outputs, np.float32)}


def affine(*shape: int) -> dict[str, np.ndarray]:
    """Scale and offset of a norm."""
    return {"gamma": np.ones(shape, np.float32), "beta": np.zeros(shape, np.float32)}
