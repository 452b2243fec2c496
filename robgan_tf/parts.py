"""Parts that only configurations name have to be imported all the same, so that gin knows them: importing this does."""

import importlib

_NAMED_ONLY = (
    "data.image_folder",
    "data.records",
    "data.tfds_images",
    "evaluation.apgd",
    "evaluation.corruptions",
    "evaluation.sanity",
    "evaluation.training_curves",
    "evaluation.training_scores",
    "players.attacker",
    "players.discriminator",
    "players.generator",
    "players.preact_resnet",
    "players.vgg",
    "serving.loading",
    "stages.cotraining",
    "stages.finetuning",
)
for part in _NAMED_ONLY:
    importlib.import_module(f"robgan_tf.{part}")
