"""What configurations come to, built in a process of its own: so that this one never holds a device.

    python -m tools.reproduction.expected < requests.json > answers.json

A request is {"files": [...], "params": [...], "cost": false}; an answer is what `build` returns.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def expected(requests: list[dict]) -> list[dict]:
    """Returns the answers to `requests`, from another process.

    Raises:
        ValueError: where a configuration can't be built, with the reason.
    """
    command = [sys.executable, "-m", "tools.reproduction.expected"]
    result = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        raise ValueError((lines or result.stderr.splitlines()[-1:] or ["no answer"])[0].removeprefix("error: "))
    return json.loads(result.stdout.splitlines()[-1])


def with_seed(answer: dict, seed: int, taken: tuple | None = None) -> dict:
    """Returns an answer for another seed, in which nothing differs but the seed and the file of generated images.

    Args:
        answer: see `build`.
        seed: the other one.
        taken: that file as it stands in the answer, and as it is with the other seed; None for none.
    """
    config, count = re.subn(
        r"^Experiment\.seed = .*$", f"Experiment.seed = {seed}", answer["config"], flags=re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"Experiment.seed stands {count} times in the operative configuration.")
    if taken:
        config = config.replace(*map(str, taken))
    return {**answer, "config": config}


def build(request: dict) -> dict:
    """Builds the experiment of a request, and describes it.

    Args:
        request: `files` and `params` of the configuration, and `cost`: whether to count its arithmetic.

    Returns:
        `config` (the operative configuration), `data` in words, `train_images`, `stages` (name, steps, images of a
        step, updates of the classifier or discriminator, operations in all), and `rate`: operations a second here.
    """
    import gin

    from robgan_tf.bindings import operative_config
    from robgan_tf.experiment.describe import summary
    from robgan_tf.experiment.machine_speed import matrix_product_rate
    from robgan_tf.experiment.needs import step_needs
    from robgan_tf.keras2 import keras

    gin.clear_config(clear_constants=False)
    experiment = command_line.build_experiment(request["files"], request["params"])
    stages = []
    for stage in experiment.training_stages:
        needs = step_needs(stage, experiment.data.image_shape, experiment.strategy) if request["cost"] else None
        stages.append(
            {
                "stage": stage.name_of_stage,
                "steps": stage.total_steps,
                "images_per_step": stage.images_per_step,
                "updates": stage.total_steps * stage.updates_per_step,
                "flops": needs and stage.total_steps * needs.flops * experiment.strategy.num_replicas_in_sync,
            }
        )
    return {
        "config": operative_config(),
        "data": summary(experiment).splitlines()[0],
        "train_images": len(experiment.data.train),
        "stages": stages,
        "rate": matrix_product_rate(keras.mixed_precision.global_policy().compute_dtype) if request["cost"] else None,
    }


if __name__ == "__main__":
    answers = [build(request) for request in json.load(sys.stdin)]
    print(json.dumps(answers))
