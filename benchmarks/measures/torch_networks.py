"""The generator and the discriminator in PyTorch, written from the paper's description and PyTorch's own habits.

Images and feature maps are float [B, C, H, W]. The same modules serve both forms of `torch_baseline.Peer`: who calls
the discriminator says with which normalised weights, so that several passes can share them or each compute its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measures.shapes import BOTTOM

TINY = 1e-12  # smaller norms are taken for zero


class Block(NamedTuple):
    """Output channels of a residual block, and whether it changes the sides of the image by a factor of two."""

    filters: int
    resample: bool


class ConditionalBatchNorm(nn.Module):
    """Batch norm without an affine map of its own, then scale and offset of each image's class.

    The running variance is PyTorch's, the unbiased one.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=2e-5, momentum=0.1, affine=False)
        self.gamma = nn.Parameter(torch.ones(num_classes, channels))
        self.beta = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        images = self.norm(images)
        # Cast first: else the product, and all up to the next convolution, would be float32 under autocast.
        gamma, beta = (F.embedding(labels, table).to(images.dtype) for table in (self.gamma, self.beta))
        return torch.addcmul(beta[:, :, None, None], images, gamma[:, :, None, None])


class GeneratorBlock(nn.Module):
    """cBN, ReLU, (up), conv3x3, cBN, ReLU, conv3x3, plus the shortcut conv1x1, (up)."""

    def __init__(self, inputs: int, filters: int, upsample: bool, num_classes: int):
        super().__init__()
        self.upsample = upsample
        self.norm_1 = ConditionalBatchNorm(inputs, num_classes)
        self.norm_2 = ConditionalBatchNorm(filters, num_classes)
        self.conv_1 = nn.Conv2d(inputs, filters, 3, padding=1)
        self.conv_2 = nn.Conv2d(filters, filters, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, filters, 1) if upsample or inputs != filters else nn.Identity()

    def up(self, images: Tensor) -> Tensor:
        return F.interpolate(images, scale_factor=2, mode="nearest") if self.upsample else images

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        hidden = self.conv_1(self.up(F.relu(self.norm_1(images, labels), inplace=True)))
        hidden = self.conv_2(F.relu(self.norm_2(hidden, labels), inplace=True))
        return hidden + self.up(self.conv_shortcut(images))


class Generator(nn.Module):
    """Noise [B, latent_dim] and labels [B] -> images float32 [B, C, H, W] in [-1, 1]."""

    def __init__(self, latent_dim: int, num_classes: int, bottom: int, blocks: Sequence[Block], channels: int = 3):
        super().__init__()
        self.latent_dim, self.num_classes, self.bottom = latent_dim, num_classes, bottom
        self.dense = nn.Linear(latent_dim, BOTTOM * BOTTOM * bottom)
        widths = [bottom, *(block.filters for block in blocks)]
        self.blocks = nn.ModuleList(
            GeneratorBlock(width, block.filters, block.resample, num_classes) for width, block in zip(widths, blocks)
        )
        self.norm = nn.BatchNorm2d(widths[-1], eps=2e-5, momentum=0.1)
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        # The channels vary fastest, so this is a view, and channels_last.
        images = self.dense(noise).view(-1, BOTTOM, BOTTOM, self.bottom).permute(0, 3, 1, 2)
        for block in self.blocks:
            images = block(images, labels)
        images = F.relu(self.norm(images), inplace=True)
        return torch.tanh(self.to_image(images).float())


class SpectralNorm(nn.Module):
    """A kernel [outputs, ...], its bias, and the vector u [outputs] of the power iteration."""

    def __init__(self, outputs: int, inputs: int, *size: int):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(outputs, inputs, *size))
        nn.init.xavier_uniform_(self.kernel, gain=2**0.5 if size == (3, 3) else 1.0)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))

    def matrix(self) -> Tensor:
        """The kernel as [outputs, rest]; no copy where it is channels_last."""
        kernel = self.kernel.permute(0, 2, 3, 1) if self.kernel.dim() == 4 else self.kernel
        return kernel.reshape(len(kernel), -1)

    @torch.no_grad()
    def power_iteration(self):
        matrix = self.matrix()
        v = F.normalize(matrix.t() @ self.u, dim=0, eps=TINY)
        self.u.copy_(F.normalize(matrix @ v, dim=0, eps=TINY))

    def normalized(self) -> Tensor:
        """W / sigma with sigma = |W'u| (Miyato et al., ICLR 2018): its gradient is that of u'Wv with u and v fixed."""
        return self.kernel / torch.linalg.vector_norm(self.matrix().t() @ self.u).clamp_min(TINY)


class DiscriminatorBlock(nn.Module):
    """ReLU, conv3x3, ReLU, conv3x3, (pool), plus the shortcut (pool), conv1x1; the first block has no first ReLU."""

    def __init__(self, inputs: int, filters: int, downsample: bool, first: bool):
        super().__init__()
        self.downsample, self.first = downsample, first
        hidden = filters if first else inputs
        self.conv_1 = SpectralNorm(hidden, inputs, 3, 3)
        self.conv_2 = SpectralNorm(filters, hidden, 3, 3)
        self.conv_shortcut = SpectralNorm(filters, inputs, 1, 1) if first or downsample or inputs != filters else None

    def down(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2) if self.downsample else images

    def forward(self, images: Tensor, kernels: dict[SpectralNorm, Tensor]) -> Tensor:
        hidden = F.conv2d(images if self.first else F.relu(images), kernels[self.conv_1], self.conv_1.bias, padding=1)
        hidden = F.relu(hidden, inplace=True)
        hidden = self.down(F.conv2d(hidden, kernels[self.conv_2], self.conv_2.bias, padding=1))
        shortcut, layer = self.down(images), self.conv_shortcut
        return hidden + (shortcut if layer is None else F.conv2d(shortcut, kernels[layer], layer.bias))


class Discriminator(nn.Module):
    """Images [B, C, H, W] -> logits of "real" [B] and of the classes [B, K], float32."""

    def __init__(self, num_classes: int, blocks: Sequence[Block], channels: int = 3):
        super().__init__()
        widths = [channels, *(block.filters for block in blocks)]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(width, block.filters, block.resample, first=index == 0)
            for index, (width, block) in enumerate(zip(widths, blocks))
        )
        self.source_head = SpectralNorm(1, widths[-1])
        self.class_head = SpectralNorm(num_classes, widths[-1])

    def layers(self) -> list[SpectralNorm]:
        return [module for module in self.modules() if isinstance(module, SpectralNorm)]

    def kernels(self, dtype: torch.dtype = torch.float32) -> dict[SpectralNorm, Tensor]:
        """W / sigma of every layer: of the convolutions in `dtype`, of the heads in float32."""
        normalized = {layer: layer.normalized() for layer in self.layers()}
        return {layer: kernel.to(dtype) if kernel.dim() == 4 else kernel for layer, kernel in normalized.items()}

    def forward(self, images: Tensor, kernels: dict[SpectralNorm, Tensor]) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            images = block(images, kernels)
        with torch.autocast(images.device.type, enabled=False):
            features = F.relu(images).float().sum(dim=(2, 3))
            source, classes = (
                F.linear(features, kernels[head], head.bias) for head in (self.source_head, self.class_head)
            )
        return source.squeeze(1), classes
