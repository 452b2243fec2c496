"""Makes the golden files anew, by the commands of the checkout that `robgan_tf` is imported from; see README.md."""

import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
# The demo with networks of a few channels. Checkpoints fall between two entries of the metrics.
PARAMS = (
    "Generator.base_width = 2",
    "Generator.latent_dim = 8",
    "Discriminator.base_width = 2",
    "CoTraining.batch_size = 16",
    "CoTraining.discriminator_steps = 2",
    "CoTraining.epochs = 0.25",
    "FineTuning.batch_size = 16",
    "FineTuning.epochs = 0.15",
    "FineTuning.average_decay = 0.9",
    "RobustnessEvaluation.epsilons = (0.0, 0.1, 0.2)",
    "RobustnessEvaluation.test_examples = 40",
    "RobustnessEvaluation.checks = None",
    "Upkeep.log_every = 2",
    "Upkeep.checkpoint_every = 5",
    "Upkeep.keep_checkpoints = 9",
    "Experiment.sample_every = 4",
    "Experiment.validate_every = 4",
)
# What a kill would have left right after a checkpoint: the files of a run that was not killed, without later ones.
PARTS = {
    "cotraining": ("config.gin", "metrics.jsonl", "checkpoints/cotraining/00000005"),
    "finetuning": (
        "config.gin",
        "metrics.jsonl",
        "checkpoints/cotraining/00000010",
        "checkpoints/finetuning/00000005",
        "checkpoints/finetuning_best",
    ),
    "finished": (
        "config.gin",
        "manifest.json",
        "metrics.jsonl",
        "robustness.json",
        "checkpoints/cotraining/00000010",
        "checkpoints/finetuning/00000012",
        "checkpoints/finetuning_best",
        "export",
    ),
}


def fingerprints(checkpoint):
    """Two numbers for each value of a checkpoint, by its key: its l2 norm, and the projection on a fixed direction."""
    reader = tf.train.load_checkpoint(str(checkpoint / "values"))
    found = {}
    for key in sorted(reader.get_variable_to_shape_map()):
        if "GRAPH" not in key:
            value = reader.get_tensor(key).astype(np.float64).ravel()
            found[key] = [float(np.linalg.norm(value)), float(value @ np.cos(np.arange(len(value))))]
    return found


def images():
    """uint8 [4, 16, 16, 1], to ask an export about."""
    return np.random.default_rng(0).integers(0, 256, [4, 16, 16, 1], np.uint8)


def main():
    gin_file = pathlib.Path(sys.argv[1]) / "gin" / "digits.gin"
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "robgan_tf.train", f"--gin_file={gin_file}", f"--run_dir={run}"]
        subprocess.run([*command, *(f"--gin_param={param}" for param in PARAMS)], check=True)
        for part, names in PARTS.items():
            for name in names:
                source, target = run / name, pathlib.Path(folder) / part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        with tarfile.open(HERE / "runs.tar.xz", "w:xz") as archive:
            for part in PARTS:
                archive.add(pathlib.Path(folder) / part, part)
        export = tf.saved_model.load(str(run / "export" / "1"))
        scores = export.signatures["serving_default"](tf.constant(images()))["scores"]
        expected = {
            "metrics": [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
            "start": fingerprints(run / "checkpoints" / "cotraining" / "00000000"),
            "values": {
                "cotraining": fingerprints(run / "checkpoints" / "cotraining" / "00000010"),
                "finetuning": fingerprints(run / "checkpoints" / "finetuning" / "00000012"),
            },
            "scores": scores.numpy().tolist(),
        }
        (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
