"""Co-training in PyTorch, as the peer that the benchmark holds this project against; a program of its own.

In two forms with the same arithmetic. Written well: channels_last, gradients of the attack with respect to the images
alone, W / sigma once for all steps of an attack, real and fake images in one pass, fused Adam. And naive, as published
research code usually is: a full backward pass in every step of the attack, with gradients of all weights that nobody
uses; W / sigma anew in every pass; a pass for the real and another for the fake images; PyTorch's default layout.

It works on a GPU where PyTorch sees one. There float32 is TF32, as in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from measures.shapes import Shapes
from measures.torch_networks import Block, Discriminator, Generator

PRECISIONS = {"float32": torch.float32, "mixed_bfloat16": torch.bfloat16}


def best_device() -> str:
    """Where a peer works: on the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait_for(device: torch.device, result):
    """Returns a result of the device once that has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result


def source_loss(logits: Tensor, real: bool) -> Tensor:
    """-log P(real) or -log P(fake) of each image."""
    return F.softplus(-logits if real else logits)


class Peer:
    """The three players, and a step of their training, with the weights of the authors' code for the split loss.

    Args:
        generator: the generator.
        discriminator: the discriminator.
        epsilon: radius of the attack's l-inf ball on [-1, 1].
        steps: of the attack in training.
        learning_rate: of Adam, for both players.
        average_decay: of the moving average of the generator's weights.
        precision: "float32" or "mixed_bfloat16" (autocast).
        naive: see the module.
        compile: whether both networks go through `torch.compile`.
        device: where it works, with all it has.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        epsilon: float = 0.0625,
        steps: int = 5,
        learning_rate: float = 2e-4,
        average_decay: float = 0.999,
        precision: str = "float32",
        naive: bool = False,
        compile: bool = False,
        device: str = "cpu",
    ):
        self.device = torch.device(device)
        if self.device.type == "cuda":  # PyTorch's own default is TF32 for convolutions and float32 for products
            torch.set_float32_matmul_precision("high")
        self.layout = torch.contiguous_format if naive else torch.channels_last
        self.generator = generator.to(self.device, memory_format=self.layout).train()
        self.discriminator = discriminator.to(self.device, memory_format=self.layout).train()
        self.epsilon, self.steps, self.step_size = epsilon, steps, epsilon / steps
        self.average_decay, self.naive = average_decay, naive
        self.dtype = PRECISIONS[precision]
        self.generate = torch.compile(self.generator) if compile else self.generator
        self.judge = torch.compile(self.discriminator) if compile else self.discriminator
        # Keras's epsilon: 1e-7, where PyTorch's is 1e-8.
        options = {"lr": learning_rate, "betas": (0.0, 0.9), "eps": 1e-7, **({} if naive else {"fused": True})}
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), **options)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), **options)
        self.averages = [weight.detach().clone() for weight in self.generator.parameters()]
        self.steps_done = 0

    @classmethod
    def of(cls, shapes: Shapes, **options) -> Peer:
        """Returns a peer with networks of these shapes and weights of its own."""
        generator, discriminator = (
            [Block(*block) for block in blocks] for blocks in (shapes.generator, shapes.discriminator)
        )
        return cls(
            Generator(shapes.latent_dim, shapes.num_classes, shapes.bottom, generator, shapes.channels),
            Discriminator(shapes.num_classes, discriminator, shapes.channels),
            **options,
        )

    @classmethod
    def like(cls, generator, discriminator, **options) -> Peer:
        """Returns a peer with the shapes and the weights of this project's players."""
        peer = cls.of(Shapes.of(generator, discriminator), **options)
        peer.load(generator, discriminator)
        return peer

    @torch.no_grad()
    def load(self, generator, discriminator):
        """Takes the weights of this project's players, of the same shapes, and all state that goes with them."""
        copy_weight(self.generator.dense, generator.dense, "weight")
        for ours, theirs in zip(self.generator.blocks, generator.blocks):
            for name in ("conv_1", "conv_2", "conv_shortcut"):
                copy_weight(getattr(ours, name), getattr(theirs, name), "weight")
            for name in ("norm_1", "norm_2"):
                copy_norm(getattr(ours, name), getattr(ours, name).norm, getattr(theirs, name), ("gamma", "beta"))
        copy_norm(self.generator.norm, self.generator.norm, generator.norm, ("weight", "bias"))
        copy_weight(self.generator.to_image, generator.to_image, "weight")
        for ours, theirs in zip(self.discriminator.blocks, discriminator.blocks):
            for name in ("conv_1", "conv_2", "conv_shortcut"):
                copy_weight(getattr(ours, name), getattr(theirs, name), "kernel")
        for name in ("source_head", "class_head"):
            copy_weight(getattr(self.discriminator, name), getattr(discriminator, name), "kernel")
        for average, weight in zip(self.averages, self.generator.parameters()):
            average.copy_(weight)

    def autocast(self):
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def images(self, images: np.ndarray) -> Tensor:
        """[B, H, W, C] -> [B, C, H, W]; channels_last is the same memory."""
        images = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.layout)

    def labels(self, labels: np.ndarray) -> Tensor:
        """Labels [B] as the methods take them."""
        return torch.from_numpy(labels).to(self.device).long()

    def wait(self, result: Tensor | dict) -> Tensor | dict:
        """Returns what a method gave, once the device has done all that it was asked for."""
        return wait_for(self.device, result)

    def gpu_memory_mib(self) -> float | None:
        """The most of the GPU's memory that tensors took so far; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else None

    def fixed_kernels(self) -> dict | None:
        """The discriminator's W / sigma as constants, in the precision of the arithmetic; None for the naive form."""
        if self.naive:
            return None
        with torch.no_grad():
            return self.discriminator.kernels(self.dtype)

    def verdict(self, images: Tensor, kernels: dict | None = None) -> tuple[Tensor, Tensor]:
        """The discriminator's logits, with given kernels or with those that it computes for this pass."""
        with self.autocast():
            return self.judge(images, self.discriminator.kernels() if kernels is None else kernels)

    # ---- the attacker

    def attack(self, images: Tensor, labels: Tensor) -> Tensor:
        """Co-training's attack on images [B, C, H, W], which maximises the discriminator's loss on them."""
        kernels = self.fixed_kernels()

        def objective(adversarial):
            source, classes = self.verdict(adversarial, kernels)
            return 0.5 * (source_loss(source, real=True).sum() + F.cross_entropy(classes, labels, reduction="sum"))

        return self.ascend(images, objective, self.steps, self.step_size)

    def evaluate_pgd(self, images: Tensor, labels: Tensor, steps: int = 20, relative_step_size: float = 0.2) -> Tensor:
        """Returns which images the class branch still gets right after PGD on its cross-entropy, bool [B]."""
        kernels = self.fixed_kernels()

        def objective(adversarial):
            return F.cross_entropy(self.verdict(adversarial, kernels)[1], labels, reduction="sum")

        adversarial = self.ascend(images, objective, steps, relative_step_size * self.epsilon)
        with torch.no_grad():
            return self.verdict(adversarial, kernels)[1].argmax(dim=1) == labels

    def ascend(self, images: Tensor, objective, steps: int, step_size: float) -> Tensor:
        if self.naive:
            return self.ascend_naively(images, objective, steps, step_size)
        low, high = (images - self.epsilon).clamp_(-1, 1), (images + self.epsilon).clamp_(-1, 1)
        adversarial = images
        for _ in range(steps):
            adversarial = adversarial.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(adversarial), adversarial)
            adversarial = torch.add(adversarial.detach(), gradient.sign_(), alpha=step_size).clamp_(low, high)
        return adversarial

    def ascend_naively(self, images: Tensor, objective, steps: int, step_size: float) -> Tensor:
        adversarial = images.clone()
        for _ in range(steps):
            adversarial = adversarial.clone().detach().requires_grad_(True)
            self.discriminator.zero_grad()
            objective(adversarial).backward()
            adversarial = adversarial.detach() + step_size * adversarial.grad.sign()
            adversarial = torch.min(torch.max(adversarial, images - self.epsilon), images + self.epsilon)
            adversarial = torch.clamp(adversarial, -1, 1)
        self.discriminator.zero_grad()
        return adversarial

    # ---- the two networks

    def update_discriminator(self, images: Tensor, labels: Tensor, noise: Tensor, fake_labels: Tensor) -> Tensor:
        """An update on real (attacked) images and as many fakes of `noise`; returns the loss."""
        with torch.set_grad_enabled(self.naive), self.autocast():
            fakes = self.generate(noise, fake_labels).detach()
        for layer in self.discriminator.layers():
            layer.power_iteration()
        if self.naive:
            real, classes = self.verdict(images)
            fake, _ = self.verdict(fakes)
        else:
            both = torch.cat([images, fakes.contiguous(memory_format=self.layout)])
            source, classes = self.verdict(both, self.discriminator.kernels(self.dtype))
            (real, fake), classes = source.chunk(2), classes[: len(images)]
        loss = (0.5 * source_loss(real, real=True) + source_loss(fake, real=False)).mean()
        loss = loss + 0.5 * F.cross_entropy(classes, labels)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.detach()

    def update_generator(self, noise: Tensor, labels: Tensor) -> Tensor:
        """An update of the generator against the discriminator as it is; returns the loss."""
        kernels = self.fixed_kernels()
        with self.autocast():
            fakes = self.generate(noise, labels)
        source, classes = self.verdict(fakes, kernels)
        loss = 0.5 * (source_loss(source, real=True).mean() + F.cross_entropy(classes, labels))
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.generator_optimizer.step()
        return loss.detach()

    def inputs(self, count: int) -> tuple[Tensor, Tensor]:
        """Noise and labels for the generator."""
        noise = torch.randn(count, self.generator.latent_dim, device=self.device)
        return noise, torch.randint(self.generator.num_classes, (count,), device=self.device)

    def train_step(self, images: np.ndarray, labels: np.ndarray, steps: int, inputs: Sequence | None = None) -> dict:
        """One update of the generator, then `steps` times an attack and an update of the discriminator.

        Args:
            images: float32 [steps * B, H, W, C] in [-1, 1]; every `steps`-th one goes to the same micro-batch.
            labels: int [steps * B].
            steps: discriminator updates.
            inputs: noise and labels of the generator's update and of each of the discriminator's; None draws them.
        """
        inputs = inputs or [self.inputs(len(images) // steps) for _ in range(1 + steps)]
        losses = {"generator_loss": self.update_generator(*inputs[0])}
        for index in range(steps):
            batch, classes = self.images(images[index::steps]), self.labels(labels[index::steps])
            adversarial = self.attack(batch, classes)
            losses["discriminator_loss"] = self.update_discriminator(adversarial, classes, *inputs[1 + index])
        decay = min(self.average_decay, (1 + self.steps_done) / (10 + self.steps_done))
        torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.generator.parameters()], 1 - decay)
        self.steps_done += 1
        return losses


def copy_weight(layer, other, name: str):
    """Copies kernel and bias (and u) of a layer of this project: HWIO -> OIHW, [in, out] -> [out, in]."""
    if other is None:
        return
    kernel = other.kernel.numpy()
    kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    getattr(layer, name).copy_(torch.from_numpy(kernel.copy()))
    layer.bias.copy_(torch.from_numpy(other.bias.numpy()))
    if hasattr(other, "u"):
        layer.u.copy_(torch.from_numpy(other.u.numpy()))


def copy_norm(affine, norm, other, names: tuple[str, str]):
    """Copies scale, offset and running averages of a batch norm of this project."""
    pairs = zip(
        (*(getattr(affine, name) for name in names), norm.running_mean, norm.running_var),
        (other.gamma, other.beta, other.moving_mean, other.moving_variance),
    )
    for ours, theirs in pairs:
        ours.copy_(torch.from_numpy(theirs.numpy()))
