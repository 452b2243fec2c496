"""Accuracy on naturally corrupted images, organised as CIFAR-10-C is (Hendrycks & Dietterich, ICLR 2019).

Each corruption has five severities. Lengths are shares of the image's side, so that a severity does about the same to
images of any size. The strengths of normal noise, Gaussian blur, contrast and brightness are those of CIFAR-10-C; the
others, most of which it does not have, were chosen by eye on its images.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Callable

import gin
import numpy as np
import tensorflow as tf

from robgan_tf.data.batches import evaluation_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.data.preprocessing import row_seed, uniform
from robgan_tf.robustness.image_operations import image_operations

# What reports call them, so that nobody takes their figures for those of CIFAR-10-C.
NAME = "corruptions of robgan_tf"


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A corruption at five severities.

    Attributes:
        name: for reports.
        apply: maps (images float32 [B, H, W, C] in [-1, 1], strength, seed int64 [3]) to images, which may leave that
            range; the seed is that of `preprocessing.uniform`.
        strengths: what severity 1 .. 5 means to it.
    """

    name: str
    apply: Callable
    strengths: tuple[float, float, float, float, float]

    def __call__(self, images: tf.Tensor, severity: int, seed: tf.Tensor) -> tf.Tensor:
        """Returns corrupted images, float32 [B, H, W, C] in [-1, 1].

        Args:
            images: float32 [B, H, W, C] in [-1, 1].
            severity: 0 .. 5; 0 returns the images as they are.
            seed: int64 [3]: a stateless seed of two, and the row of the data that these images begin with. An image
                gets the same corruption whichever images are corrupted with it.

        Raises:
            ValueError: for another severity.
        """
        if not 0 <= severity <= len(self.strengths):
            raise ValueError(f"{self.name}: severity must be within 0 .. {len(self.strengths)}, got {severity}.")
        if severity == 0:
            return images
        corrupted = self.apply(images, self.strengths[severity - 1], seed)
        return tf.ensure_shape(tf.clip_by_value(corrupted, -1.0, 1.0), images.shape)


def gaussian_noise(images, deviation, seed):
    """Adds normal noise of this standard deviation to every value."""
    # The normal distribution's quantile at the middle of each of the 65,536 steps that `uniform` has.
    ranks = uniform(seed, [tf.shape(images)[0], *images.shape[1:]]) + 2**-17
    return images + deviation * tf.math.ndtri(ranks)


def uniform_noise(images, width, seed):
    """Adds uniform noise within [-width, width] to every value."""
    return images + width * _signed(seed, images, images.shape[1:])


def gaussian_blur(images, share, seed):
    """Blurs by a Gaussian whose standard deviation is this share of the side."""
    sigma = share * _side(images)
    # Three standard deviations on each side; a mirror image can't be longer than the image.
    reach = min(math.ceil(3 * sigma), _side(images) - 1)
    return image_operations().gaussian_filter(images, sigma, reach)


def median_filter(images, share, seed):
    """Replaces each value by the median of those up to this share of the side away, in its column, then in its row.

    The separable median (Narendra, PAMI 1981): that of a whole square costs too much on large images. Between whole
    pixels it is interpolated.
    """
    reach = share * _side(images)
    near, far = (_separable_median(images, 2 * (math.floor(reach) + more) + 1) for more in (0, 1))
    return near + (reach % 1) * (far - near)


def _separable_median(images, window):
    median = image_operations().median_filter
    return median(median(images, (window, 1)), (1, window))


def contrast(images, factor, seed):
    """Moves every value towards the mean of its image and channel: the difference is multiplied by the factor."""
    # Not tfa.image.blend, which rounds to whole numbers.
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    return mean + factor * (images - mean)


def brightness(images, change, seed):
    """Makes every value lighter by this much (CIFAR-10-C adds it to the value of HSV)."""
    return images + change


def rotation(images, degrees, seed):
    """Turns by this angle, to a random side."""
    return image_operations().rotate(images, _side_taken(seed, images) * math.radians(degrees))


def translation(images, share, seed):
    """Moves by this share of the side, in a random direction."""
    angle = math.pi * _signed(seed, images, [1])
    shift = share * _side(images) * tf.concat([tf.cos(angle), tf.sin(angle)], axis=1)
    return image_operations().translate(images, shift)


def shear(images, slope, seed):
    """Moves each row sideways by this multiple of its distance from the middle one, to a random side."""
    slopes = slope * _side_taken(seed, images)
    middle = (images.shape[1] - 1) / 2
    one, zero = tf.ones_like(slopes), tf.zeros_like(slopes)
    # Output (x, y) is taken from input (x + slope (y - middle), y).
    matrix = tf.stack([one, slopes, -slopes * middle, zero, one, zero, zero, zero], axis=1)
    return image_operations().transform(images, matrix)


def cut_out(images, share, seed):
    """Covers a square of this share of the side in grey, its middle anywhere in the image."""
    size = 2 * max(1, round(share * _side(images) / 2))  # has to be even
    height, width = images.shape[1:3]
    middles = tf.cast(uniform(seed, [tf.shape(images)[0], 2]) * tf.constant([height, width], tf.float32), tf.int32)
    return image_operations().cut_out(images, size, middles)


def elastic(images, share, seed):
    """Moves every pixel by a smooth random field, by up to this share of the side in each direction."""
    # Knots far enough apart to bend things rather than to tear them; bilinear, or the field would overshoot.
    knots = _signed(seed, images, [5, 5, 2])
    flow = share * _side(images) * tf.image.resize(knots, images.shape[1:3])
    return image_operations().warp(images, flow)


def _side(images) -> int:
    """The shorter side of the images in pixels."""
    return min(images.shape[1:3])


def _signed(seed, images, shape) -> tf.Tensor:
    """Uniform random numbers in [-1, 1) for each image, float32 [B, *shape]."""
    return 2 * uniform(seed, [tf.shape(images)[0], *shape]) - 1


def _side_taken(seed, images) -> tf.Tensor:
    """-1 or 1 for each image, float32 [B]."""
    return tf.where(uniform(seed, [tf.shape(images)[0]]) < 0.5, -1.0, 1.0)


# On the pixel scale [-1, 1], on which values of CIFAR-10-C are twice as large; its lengths are given for 32 pixels.
CORRUPTIONS = (
    Corruption("gaussian_noise", gaussian_noise, (0.08, 0.12, 0.16, 0.18, 0.2)),
    Corruption("uniform_noise", uniform_noise, (0.14, 0.21, 0.28, 0.31, 0.35)),  # the same standard deviations
    Corruption("gaussian_blur", gaussian_blur, (0.4 / 32, 0.6 / 32, 0.7 / 32, 0.8 / 32, 1 / 32)),
    Corruption("median_filter", median_filter, (1 / 32, 1.5 / 32, 2 / 32, 2.5 / 32, 3 / 32)),
    Corruption("contrast", contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    Corruption("brightness", brightness, (0.1, 0.2, 0.3, 0.4, 0.6)),
    Corruption("rotation", rotation, (6, 12, 18, 24, 30)),
    Corruption("translation", translation, (0.04, 0.08, 0.12, 0.16, 0.2)),
    Corruption("shear", shear, (0.1, 0.2, 0.3, 0.4, 0.5)),
    Corruption("cut_out", cut_out, (0.15, 0.25, 0.35, 0.45, 0.55)),
    Corruption("elastic", elastic, (0.03, 0.06, 0.09, 0.12, 0.15)),
)


@gin.configurable
def corruption_accuracy(
    logits: Callable[[tf.Tensor], tf.Tensor],
    examples: Examples,
    batch_size: int,
    seed: int,
    progress: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measures the accuracy of a classifier on corrupted images.

    Args:
        logits: maps images float32 [B, H, W, C] in [-1, 1] to class logits [B, K], in inference mode.
        examples: N clean images and their labels, N >= 1.
        batch_size: images at once.
        seed: of what is random in a corruption; all severities of one share it.
        progress: is called with a line of text after each corruption.

    Returns:
        What `robustness.json` holds as "corruptions": {"name": of the set of corruptions, "mean": accuracy over all
        corruptions and severities, "seed", "examples", "by_corruption": {name: [accuracy at severity 1, ..., 5]}}.

    Raises:
        ValueError: if there are no examples.
    """

    @tf.function(autograph=False)
    def hits(images, labels, mask):
        right = tf.equal(tf.argmax(logits(images), axis=-1, output_type=labels.dtype), labels)
        return tf.reduce_sum(mask * tf.cast(right, mask.dtype))

    batch_size = min(batch_size, max(len(examples), 1))
    batches = evaluation_batches(examples, batch_size)
    accuracies = {}
    for number, corruption in enumerate(CORRUPTIONS):
        right = np.zeros(len(corruption.strengths))
        for index, (images, labels, mask) in enumerate(batches):
            here = row_seed(tf.constant([seed, number], tf.int64), tf.constant(index * batch_size, tf.int64))
            for severity in range(1, len(right) + 1):
                right[severity - 1] += hits(corruption(images, severity, here), labels, mask).numpy()
        accuracies[corruption.name] = [float(accuracy) for accuracy in right / len(examples)]
        shown = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies[corruption.name])
        progress(f"{corruption.name}: accuracy {shown} at severity 1 to {len(right)}, {len(examples)} images")
    mean = float(np.mean(list(accuracies.values())))
    return {"name": NAME, "mean": mean, "seed": seed, "examples": len(examples), "by_corruption": accuracies}
