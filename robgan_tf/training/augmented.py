"""Generated images that are augmented as real ones are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf

from robgan_tf.data.batches import check_augmentations
from robgan_tf.data.preprocessing import row_seed, to_pixel_range, to_uint8
from robgan_tf.keras2 import keras
from robgan_tf.training.generated import GeneratedImages
from robgan_tf.values import checked, maker, several


class Augmented(GeneratedImages):
    """The images of another source, augmented by other random numbers in each batch.

    They are rounded to 8 bits before, as real images are, and as those of a file are anyway.

    Args:
        source: where they come from.
        augment: augmentations, applied in this order, see `data/preprocessing.py`.

    Raises:
        ValueError: for what the augmentations refuse.
    """

    def __init__(self, source: GeneratedImages, augment: Sequence[Callable]):
        check_augmentations(augment, source.image_shape)
        self.source = source
        self.augment = tuple(augment)
        self.origin, self.nbytes = source.origin, source.nbytes
        self.num_classes, self.image_shape = source.num_classes, source.image_shape

    def sample(self, seed, count):
        """See `GeneratedImages`."""
        images, labels = self.source.sample(seed, count)
        images = to_uint8(images)
        first = tf.cast(count * tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        for position, function in enumerate(self.augment):
            key = tf.random.experimental.stateless_fold_in(seed, 0xA463 + position)
            images = function(images, row_seed(tf.cast(key, tf.int64), first))
        return tf.ensure_shape(to_pixel_range(images), [count, *self.image_shape]), labels

    def check(self, num_classes, image_shape):
        """See `GeneratedImages`."""
        self.source.check(num_classes, image_shape)


@gin.configurable
@checked(source=maker("@sample_file"), augment=several(maker("@random_flip")))
def augmented(
    generator: keras.Model | None,
    num_classes: int,
    source: Callable = gin.REQUIRED,
    augment: Sequence[Callable] = gin.REQUIRED,
) -> Augmented | None:
    """The source for `Experiment.generated` that augments the images of another: `augmented.source = @sample_file`."""
    made = source(generator, num_classes)
    return None if made is None else Augmented(made, augment)
