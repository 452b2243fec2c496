"""A certified lower bound: within which l2 distance no perturbation can change the class, from the network's norms.

The largest change of the features is the product of the layers' operator norms times the change of the image, so that a
margin between two classes lasts for a while (Tsuzuku, Sato & Sugiyama, NeurIPS 2018, "Lipschitz-margin training"). The
bound holds for every attack, and for deep networks it is mostly so small that it certifies nothing: then it says so.
"""

from __future__ import annotations

import math

import gin
import numpy as np
from scipy.spatial.distance import cdist

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.threat_model import ThreatModel
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.robustness.certificates import batches_of, certified_block

# What float64 may lose in the norms.
_ROUNDING = 1 + 1e-9


@gin.register
class LipschitzMargin:
    """The certificate of the discriminator's class branch, as it is exported: W / sigma in place of every W."""

    name = "lipschitz_margin"
    label = "Lipschitz margin"

    def __call__(self, logits, examples: Examples, batch_size: int, seed: int, ball: ThreatModel) -> dict:
        """Returns what the report says of the certificate.

        Args:
            logits: the classifier; only a `ClassBranch` shows its layers.
            examples: N test images.
            batch_size: images at once.
            seed: not used.
            ball: the evaluation's threat model.

        Raises:
            ValueError: for a classifier whose layers can't be seen, such as a SavedModel.
        """
        if not isinstance(logits, ClassBranch):
            raise ValueError(
                "LipschitzMargin needs the layers of the discriminator's class branch, which neither a SavedModel nor "
                "another network shows: evaluate the run with --run_dir, or take RandomizedSmoothing."
            )
        lipschitz = features_lipschitz(logits.discriminator)
        weights = _kernel(logits.discriminator.class_head)
        answers = np.concatenate([logits(images).numpy() for images in batches_of(examples, batch_size)])
        block = certified_block(margin_radii(answers, examples.labels, weights, lipschitz), ball, examples.image_shape)
        about = f"the features change at most {lipschitz:.3g} times as much as the image, in l2"
        own = {"name": self.name, "label": self.label, "of": "the network", "lipschitz": lipschitz}
        return {**own, **block, "about": about}


def margin_radii(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, lipschitz: float) -> np.ndarray:
    """Returns the certified l2 radius of each image, float64 [N]; 0 where the answer is wrong.

    It is min_k (z_y - z_k) / (L |w_y - w_k|), L of the features, w the columns of the last layer.

    Args:
        logits: [N, K].
        labels: int [N].
        weights: of the last layer, [D, K].
        lipschitz: L.
    """
    every, columns = np.arange(len(labels)), weights.T.astype(np.float64)
    apart = cdist(columns, columns)[labels]
    margins = logits[every, labels][:, None].astype(np.float64) - logits
    with np.errstate(divide="ignore", invalid="ignore"):
        radii = np.where(apart > 0, margins / (lipschitz * apart), np.where(margins > 0, np.inf, 0))
    radii[every, labels] = np.inf
    return np.maximum(radii.min(axis=1), 0)


def features_lipschitz(discriminator) -> float:
    """Returns an upper bound of the l2 Lipschitz constant from images to pooled features of a `Discriminator`.

    A block is at most its shortcut's norm plus the product of its convolutions' norms; a ReLU has 1, and the sum over
    h x w places sqrt(h w).
    """
    height, width = discriminator.image_shape[:2]
    bound = 1.0
    for block in discriminator.blocks:
        stride = 2 if block.downsample else 1
        first, second = _kernel(block.conv_1), _kernel(block.conv_2)
        second = _folded(second) if block.downsample else second
        branch = convolution_norm(first, height, width) * convolution_norm(second, height, width, stride)
        # Averages of four pixels have norm 1/2.
        shortcut = np.linalg.norm(_kernel(block.conv_shortcut)[0, 0], ord=2) / stride if block.conv_shortcut else 1.0
        bound *= shortcut + branch
        height, width = height // stride, width // stride
    return float(bound * math.sqrt(height * width))


def convolution_norm(kernel: np.ndarray, height: int, width: int, stride: int = 1) -> float:
    """Returns an upper bound of a convolution's l2 operator norm on images of height x width, with zeros around them.

    On a torus large enough that nothing wraps around, the convolution of a padded image is the same, and there its norm
    is exact: the largest singular value over all frequencies (Sedghi, Gupta & Long, ICLR 2019); with a stride of 2 that
    of the four frequencies together that fall on each other.

    Args:
        kernel: [size, size, in, out].
        height: of the images.
        width: of the images.
        stride: 1, or 2.
    """
    sides = [side + kernel.shape[0] + (side + kernel.shape[0]) % stride for side in (height, width)]
    spectrum = np.fft.fft2(kernel.astype(np.float64), sides, axes=(0, 1))
    if stride > 1:
        half = [side // stride for side in sides]
        spectrum = spectrum.reshape(stride, half[0], stride, half[1], *kernel.shape[2:])
        spectrum = spectrum.transpose(1, 3, 0, 2, 4, 5).reshape(*half, stride**2 * kernel.shape[2], kernel.shape[3])
    return float(np.linalg.svd(spectrum, compute_uv=False).max() / stride * _ROUNDING)


def _kernel(layer) -> np.ndarray:
    """The kernel as it is applied: W / sigma where a layer is spectrally normalised."""
    kernel = layer.normalized_kernel() if hasattr(layer, "normalized_kernel") else layer.kernel
    return kernel.numpy()


def _folded(kernel):
    """A 3x3 kernel and the average of 2x2 pixels behind it, as one 4x4 kernel: see `layers.convolution`."""
    shifts = [(row, column) for row in (0, 1) for column in (0, 1)]
    return sum(np.pad(kernel, [(row, 1 - row), (column, 1 - column), (0, 0), (0, 0)]) for row, column in shifts) / 4
