"""The losses of all players, one pure function per equation.

Each returns the loss of every image, float32 [B], so that the caller can divide the sum by the GLOBAL batch size: under
several replicas a mean would weigh them wrongly. The names that others import are here, too.
"""

from robgan_tf.losses.cotraining import (
    AcGanAsCode,
    CoTrainingLosses,
    SplitAsCode,
    Weights,
    ac_gan,
    ac_gan_discriminator_loss,
    attack_objective,
    generator_loss,
    split,
    split_discriminator_loss,
)
from robgan_tf.losses.finetuning import divergence, fine_tuning_loss, misclassification_loss, smoothed
from robgan_tf.losses.projection import (
    projection,
    projection_attack_objective,
    projection_discriminator_loss,
    projection_generator_loss,
    projection_logits,
)
from robgan_tf.losses.terms import class_loss, hinge, hinge_generator, logistic, non_saturating, wasserstein

__all__ = [
    "AcGanAsCode",
    "CoTrainingLosses",
    "SplitAsCode",
    "Weights",
    "ac_gan",
    "ac_gan_discriminator_loss",
    "attack_objective",
    "class_loss",
    "divergence",
    "fine_tuning_loss",
    "generator_loss",
    "hinge",
    "hinge_generator",
    "logistic",
    "misclassification_loss",
    "non_saturating",
    "projection",
    "projection_attack_objective",
    "projection_discriminator_loss",
    "projection_generator_loss",
    "projection_logits",
    "smoothed",
    "split",
    "split_discriminator_loss",
    "wasserstein",
]
