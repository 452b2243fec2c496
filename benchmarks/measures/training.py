"""Speed of this project's own training: an update and its parts, the loop around it, precision, the first step."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags

from measures.configured import build_stage, configure_by_flags, random_batch
from measures.machine import machine
from measures.timing import Series, alternate, timed
from robgan_tf import command_line
from robgan_tf.data import preprocessing
from robgan_tf.data.batches import training_batches
from robgan_tf.data.sources.tfds_images import digits, tfds_images
from robgan_tf.run import devices
from robgan_tf.run.checkpoints import Checkpoints
from robgan_tf.run.directory import RunDirectory
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.loop import TrainingLoop
from robgan_tf.training.monitoring import MetricsLog
from robgan_tf.training.optimization import apply_gradients, scaled
from robgan_tf.training.randomness import step_seeds
from robgan_tf.training.upkeep import Upkeep

FLAGS = flags.FLAGS


def update_parts(stage: CoTraining, images, labels) -> dict[str, Callable[[], float]]:
    """Returns the compiled discriminator update of co-training, and its parts, on a micro-batch."""
    generator, discriminator = stage.generator, stage.discriminator
    both = tf.concat([images, images[::-1]], axis=0)
    noise = tf.random.normal([len(labels), generator.latent_dim])

    def update():
        attack_seed, fake_seed = step_seeds(stage.seed, stage.step, 2)
        return stage.update_discriminator(stage.attack(images, labels, attack_seed), labels, fake_seed)

    def attack():
        return stage.attack(images, labels, tf.constant([0, 0]))

    def attack_gradient():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            total = tf.reduce_sum(stage.objectives.attack(discriminator(images, training=False), labels))
        return tape.gradient(total, images)

    def discriminator_gradient():
        with tf.GradientTape() as tape:
            verdict = discriminator(both, training=True)
            real, fake = (type(verdict)(*half) for half in zip(*(tf.split(logits, 2) for logits in verdict)))
            loss = stage.average(stage.objectives.discriminator(real, fake, labels, labels))
            target = scaled(stage.discriminator_optimizer, loss)
        variables = discriminator.trainable_variables
        apply_gradients(stage.discriminator_optimizer, tape.gradient(target, variables), variables)
        return loss

    def generator_forward():
        return generator((noise, labels), training=True)

    parts = (update, attack, attack_gradient, discriminator_gradient, generator_forward)
    return {part.__name__: timed(tf.function(part, autograph=False)) for part in parts}


def measure_update() -> list[Series]:
    """One discriminator update with its attack, against the sum of its parts measured one by one."""
    configure_by_flags()
    images, labels = random_batch(FLAGS.batch)
    functions = {}
    for precision in FLAGS.precision:
        parts = update_parts(build_stage(precision, images.shape[1:]), images, labels)
        functions.update({f"{precision} {name}": function for name, function in parts.items()})
    series = alternate(functions)
    ratios = []
    for precision in FLAGS.precision:
        update, attack, gradient, discriminator, generator = (series[f"{precision} {name}"].values for name in parts)
        total = FLAGS.attack_steps * gradient + discriminator + generator
        ratios.append(Series(f"{precision} update / sum of parts", update / total, "", at_most=1.15))
        ratios.append(Series(f"{precision} attack / its gradients", attack / (FLAGS.attack_steps * gradient), ""))
    return [*series.values(), *ratios]


def measure_loop() -> list[Series]:
    """Seconds per training step: bare on a ready batch, fed by the data pipeline, and in the loop with its log.

    A repetition is `--steps` steps, after one that fills the pipeline's buffers and does not count.
    """
    configure_by_flags("32px_sngan" if FLAGS.data_dir else "16px")
    data = tfds_images("cifar10", data_dir=FLAGS.data_dir) if FLAGS.data_dir else digits()
    stage = build_stage(FLAGS.precision[0], data.image_shape)
    step = tf.function(stage.train_step, autograph=False)
    augment = (preprocessing.pad_and_crop, preprocessing.random_flip)
    batches = training_batches(data.train, stage.images_per_step, steps=10**9, seed=0, augment=augment, noise=1 / 128)
    iterator = iter(batches)
    ready = next(iterator)

    def python_loop(next_batch):
        timed(lambda: step(next_batch()))()
        return timed(lambda: [step(next_batch()) for _ in range(FLAGS.steps)])() / FLAGS.steps

    def whole_loop(run_directory):
        checkpoints = Checkpoints(run_directory.path / "checkpoints", stage.checkpoint_objects())
        upkeep = Upkeep(checkpoint_every=10**9, checkpoint_minutes=10**9)
        numbers = itertools.count(1)
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            with MetricsLog(stage, run_directory, every=FLAGS.steps) as log:
                loop = TrainingLoop(stage, log, checkpoints, [], upkeep, lambda: 0, dict)

                def take_step():
                    loop.after_step(next(numbers), step(next(iterator)))

                timed(take_step)()
                return timed(lambda: [take_step() for _ in range(FLAGS.steps)])() / FLAGS.steps

    with tempfile.TemporaryDirectory() as folder:
        functions = {
            "bare": lambda: python_loop(lambda: ready),
            "fed": lambda: python_loop(lambda: next(iterator)),
            "loop": lambda: whole_loop(RunDirectory(folder)),
        }
        bare, fed, whole = alternate(functions).values()
    overheads = [
        Series("fed / bare - 1", fed.values / bare.values - 1, ""),
        Series("loop / bare - 1", whole.values / bare.values - 1, "", at_most=0.05),
    ]
    return [bare, fed, whole, *overheads]


def measure_watching() -> list[Series]:
    """A training step on a ready batch: with all metrics and an entry every `--steps` steps, against one without any.

    Where nobody takes the metrics, TensorFlow leaves out what only they need: norms of gradients and weights. In
    seconds of the processor, which other programs disturb less, and of the clock.
    """
    configure_by_flags("32px_sngan" if FLAGS.data_dir else "16px")
    data = tfds_images("cifar10", data_dir=FLAGS.data_dir) if FLAGS.data_dir else digits()
    stage = build_stage(FLAGS.precision[0], data.image_shape)
    batch = next(iter(training_batches(data.train, stage.images_per_step, steps=1, seed=0)))

    def drop_metrics(batch):
        stage.train_step(batch)

    silent, step = (tf.function(function, autograph=False) for function in (drop_metrics, stage.train_step))
    functions = lambda: silent(batch), lambda: log.add(stage.steps_done + 1, step(batch))

    def seconds(function):
        processor = time.process_time()
        return np.array([timed(function)(), time.process_time() - processor])

    unwatched, watched = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # the progress
        with MetricsLog(stage, RunDirectory(folder), every=FLAGS.steps) as log:
            first = [seconds(function) for function in functions]
            log.write({})
            for _ in range(FLAGS.repetitions):
                total = np.zeros([2, 2])
                for number in range(FLAGS.steps):
                    # In turn, and each as often in front as behind: the machine changes from one second to the next.
                    for which in (0, 1) if number % 2 else (1, 0):
                        total[which] += seconds(functions[which])
                total[1] += seconds(lambda: log.write({}))
                unwatched.append(total[0] / FLAGS.steps)
                watched.append(total[1] / FLAGS.steps)
    series = []
    for place, unit in enumerate(("clock", "processor")):
        bare, seen = (np.array(values)[:, place] for values in (unwatched, watched))
        series += [
            Series(f"unwatched, {unit}", bare, first=first[0][place]),
            Series(f"watched, {unit}", seen, first=first[1][place]),
            Series(f"watched / unwatched - 1, {unit}", seen / bare - 1, "", at_most=0.02),
        ]
    return series


def measure_upkeep() -> list[Series]:
    """What a run pays for being looked after: a checkpoint, and a strategy of one replica, against a training step."""
    configure_by_flags()
    images, labels = random_batch(FLAGS.batch * FLAGS.discriminator_steps)
    precision = FLAGS.precision[0]
    stage, strategy = build_stage(precision, images.shape[1:]), devices.mirrored(("CPU:0",))
    with strategy.scope():
        mirrored = build_stage(precision, images.shape[1:])

    def mirrored_step():
        return strategy.run(mirrored.train_step, args=((images, labels),))

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder) / "checkpoints", stage.checkpoint_objects())
        functions = {
            "step": timed(tf.function(stage.train_step, autograph=False), (images, labels)),
            "step under MirroredStrategy": timed(tf.function(mirrored_step, autograph=False)),
            "checkpoint": timed(lambda: checkpoints.save(1)),
        }
        step, under_strategy, checkpoint = alternate(functions).values()
    costs = [
        Series("under MirroredStrategy / step - 1", under_strategy.values / step.values - 1, "", at_most=0.03),
        Series("checkpoint / 200 steps", checkpoint.values / (200 * step.values), "", at_most=0.03),
    ]
    return [step, under_strategy, checkpoint, *costs]


def measure_precision() -> list[Series]:
    """A whole training step on a ready batch: the first precision against each of the others."""
    configure_by_flags()
    images, labels = random_batch(FLAGS.batch * FLAGS.discriminator_steps)
    functions = {}
    for precision in FLAGS.precision:
        stage = build_stage(precision, images.shape[1:])
        functions[precision] = timed(tf.function(stage.train_step, autograph=False), (images, labels))
    first, *others = alternate(functions).values()
    # The requirement is for 32 px and ch = 64, on processors that multiply in bfloat16.
    required = FLAGS.width == 64 and images.shape[1] == 32 and "avx512_bf16" in machine()["cpu_flags"]
    ratios = []
    for other in others:
        promised = required and (first.name, other.name) == ("float32", "mixed_bfloat16")
        name = f"{first.name} / {other.name}"
        ratios.append(Series(name, first.values / other.values, "", at_least=1.5 if promised else None))
    return [first, *others, *ratios]


def measure_first_step() -> list[Series]:
    """A new process `python -m robgan_tf.train`: seconds to its first finished step, and its peak memory."""
    if not FLAGS.gin_file:
        command_line.fail("--measure=first_step needs --gin_file, e.g. --gin_file=gin/digits.gin")
    seconds, peak = zip(*(_first_step() for _ in range(FLAGS.starts)))
    return [Series("start to first step", seconds), Series("peak resident memory", peak, "MiB")]


def _first_step() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        metrics, output = RunDirectory(f"{folder}/run").metrics, pathlib.Path(folder) / "output"
        command = [sys.executable, "-m", "robgan_tf.train", f"--run_dir={folder}/run"]
        command += [f"--gin_file={file}" for file in FLAGS.gin_file]
        command += [f"--gin_param={param}" for param in (*FLAGS.gin_param, "Upkeep.log_every = 1")]
        ended = 0
        with output.open("w") as log:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not ended and not (metrics.exists() and metrics.stat().st_size):
                time.sleep(0.02)
                ended, process.returncode, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.perf_counter() - start
        finally:
            if not ended:
                os.kill(process.pid, signal.SIGKILL)
                _, process.returncode, usage = os.wait4(process.pid, 0)
        if ended:
            command_line.fail(f"training ended before its first step: {output.read_text()[-2000:].strip()}")
        return seconds, usage.ru_maxrss / 1024
