"""How a classifier is exported, as gin can set it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import gin

from robgan_tf.bindings import may_change
from robgan_tf.serving.requests import MAX_PIXELS
from robgan_tf.serving.warm_up import check_batch_sizes
from robgan_tf.values import checked, one_of, several, switch, whole

# Compute type -> Keras's name of the precision.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

# TensorFlow's decoders refuse larger images by themselves, with a message about bytes.
_MOST_PIXELS = 2**27


@gin.configurable
@may_change()
@checked(
    compute=one_of(*PRECISIONS),
    xla=switch(),
    warm_up_batch_sizes=several(whole(1)),
    max_pixels=whole(1, _MOST_PIXELS),
)
@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a classifier is exported.

    Attributes:
        compute: type of the activations, "float32" or "bfloat16"; weights and answers are float32 in both.
        xla: whether the network is compiled by XLA when it is served. Every batch size is compiled anew, at its first
            request: name them in `warm_up_batch_sizes`.
        warm_up_batch_sizes: numbers of images of the requests that a model server sends itself while it loads.
        max_pixels: largest height x width of an encoded image, which is refused otherwise, before it is decoded.

    Raises:
        ValueError: for another compute type, no warm-up, or a limit below one pixel.
    """

    compute: str = "float32"
    xla: bool = False
    warm_up_batch_sizes: Sequence[int] = (1,)
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        check_batch_sizes(self.warm_up_batch_sizes)

    def check(self, image_shape: Sequence[int]) -> None:
        """Raises a ValueError where images of the network's shape (H, W, C) can't be decoded, or would be refused."""
        height, width, channels = image_shape
        if channels not in (1, 3):
            raise ValueError(
                f"An export decodes images of 1 channel (grey) or 3 (RGB), the data has {channels}: give data of 1 or "
                f"3 channels."
            )
        if self.max_pixels < height * width:
            raise ValueError(
                f"ExportOptions.max_pixels = {self.max_pixels} refuses images of the network's own size, {height} x "
                f"{width}: set it to {height * width} or more."
            )

    @property
    def precision(self) -> str:
        """Keras's name of the precision to build the network under, before it is given to `export_classifier`."""
        return PRECISIONS[self.compute]
