"""Rob-GAN (Liu & Hsieh, CVPR 2019): generator, discriminator and adversarial attacker, trained together.

What a user needs from Python is here; names are imported on first use, so that the command lines can answer a wrong
flag before TensorFlow is loaded.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "keras": "robgan_tf.keras2",
    "Attack": "robgan_tf.players.attacker.attack",
    "Attacker": "robgan_tf.players.attacker.pgd",
    "PGD": "robgan_tf.players.attacker.pgd",
    "LInf": "robgan_tf.players.attacker.threat_model",
    "L2": "robgan_tf.players.attacker.threat_model",
    "L1": "robgan_tf.players.attacker.threat_model",
    "Generator": "robgan_tf.players.generator",
    "Discriminator": "robgan_tf.players.discriminator",
    "CoTraining": "robgan_tf.training.cotraining",
    "FineTuning": "robgan_tf.training.finetuning",
    "KerasClassifier": "robgan_tf.players.classifiers.keras_classifier",
    "data_from_arrays": "robgan_tf.data.arrays",
    "RobustnessEvaluation": "robgan_tf.robustness.evaluation",
    "Experiment": "robgan_tf.experiment.build",
    "AttackedClassifier": "robgan_tf.players.attacker.attacked_classifier",
    "export_classifier": "robgan_tf.serving.saved_model",
    "load_classifier": "robgan_tf.serving.saved_model",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
