"""A process that trains when it is told to: `tensorflows.py` starts one for each TensorFlow.

It gets what to train as JSON in its argument, builds it, takes two steps and prints what that took. Then each line of
its standard input is a number of steps, which it takes, and for which it prints the seconds and its peak memory so far.
"""

from __future__ import annotations

import json
import sys
import time

from robgan_tf import command_line  # noqa: F401  # isort: skip  (before TensorFlow, whose log it quiets)

import gin
import tensorflow as tf

from measures.configured import REPOSITORY, build_stage, configure, image_side, network_file
from measures.probe import memory
from robgan_tf.data.batches import training_batches
from robgan_tf.data.datasets import Examples
from robgan_tf.experiment import build


def digits_stage(asked: dict):
    """Returns a stage of the demo, its images, and how they are augmented."""
    gin.add_config_file_search_path(str(REPOSITORY))
    gin.parse_config_files_and_bindings([str(REPOSITORY / "gin/digits.gin")], asked["params"])
    experiment = build.build()
    choices = experiment.configuration
    noise = choices.cotraining_noise if asked["stage"] == "cotraining" else 0.0
    return getattr(experiment, asked["stage"]), experiment.data.train, {"augment": choices.augment, "noise": noise}


def network_stage(asked: dict):
    """Returns co-training of the networks that are asked for, and random images."""
    settings = (asked[name] for name in ("width", "batch", "attack_steps", "discriminator_steps", "params"))
    configure(network_file(asked["network"]), *settings)
    side = image_side()
    stage = build_stage(asked["precision"], (side, side, 3))
    random = tf.random.Generator.from_seed(0)
    images = random.uniform([stage.images_per_step, side, side, 3], 0, 256, tf.int32).numpy().astype("uint8")
    return stage, Examples(images, random.uniform([len(images)], 0, 10, tf.int32).numpy()), {}


def main(asked: dict):
    """Builds what was asked for, and trains for as long as it is told to."""
    tf.config.threading.set_intra_op_parallelism_threads(asked["threads"])
    after_imports = memory("VmRSS")
    stage, examples, preparation = (network_stage if asked["stage"] is None else digits_stage)(asked)
    batches = training_batches(examples, stage.images_per_step, steps=10**9, seed=0, **preparation)
    stage.start()
    iterator, take_step = iter(batches), stage.step_function()

    def train(steps: int):
        for _ in range(steps):
            metrics = take_step(iterator)
        return tf.nest.map_structure(lambda value: value.numpy(), metrics)  # waits for them

    def answer(**values):
        print(json.dumps({**values, "peak": memory("VmHWM")}), flush=True)

    train(2)
    answer(seconds=time.time() - asked["started"], after_imports=after_imports, tensorflow=tf.__version__)
    for line in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        train(int(line))
        answer(seconds=time.perf_counter() - start, cpu=time.process_time() - processor)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
