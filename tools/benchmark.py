"""Measures speed and memory of training: `python tools/benchmark.py --measure=update,loop,watching,upkeep,...`.

What is compared runs in one process and in alternation, so that whatever else the machine does hits all alike; ratios
are taken round by round. First calls, which trace and compile, are timed apart. See tools/README.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import gin
import numpy as np
import tensorflow as tf
from tensorflow import keras

from robgan_tf import experiment as _experiment  # noqa: F401  (makes everything known to gin)
from robgan_tf.data import preprocessing
from robgan_tf.data.batches import training_batches
from robgan_tf.data.tfds_images import digits, tfds_images
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import BOTTOM, Generator
from robgan_tf.runtime import devices
from robgan_tf.runtime.checkpoints import Checkpoints
from robgan_tf.runtime.loop import TrainingLoop
from robgan_tf.runtime.monitoring import MetricsLog
from robgan_tf.runtime.run_directory import RunDirectory, write_json
from robgan_tf.stages.cotraining import CoTraining
from robgan_tf.stages.optimization import apply_gradients, scaled
from robgan_tf.stages.randomness import step_seeds

FLAGS = flags.FLAGS
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "gin-config")


@dataclasses.dataclass
class Series:
    """Repeated measurements of one thing, or ratios of two, round by round.

    Attributes:
        name: of what.
        values: the warm measurements, in the order they were made.
        unit: "s", "MiB" or, for a ratio, "".
        first: seconds of the first call, with tracing and compiling; None where there is no such thing.
        at_most: what the median must not exceed; None for no requirement.
        at_least: what the median must reach; None for no requirement.
    """

    name: str
    values: Sequence[float]
    unit: str = "s"
    first: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def quartiles(self) -> list[float]:
        """Lower quartile, median, upper quartile."""
        return np.percentile(self.values, [25, 50, 75]).tolist()

    def to_json(self) -> dict:
        """Returns all that is known."""
        low, median, high = self.quartiles
        spread = {"median": median, "quartiles": [low, high], "interquartile_range": high - low}
        return {**dataclasses.asdict(self), "values": np.asarray(self.values).tolist(), **spread}

    def __str__(self):
        low, median, high = self.quartiles
        line = f"  {self.name:<44} {median:>10.4f} {self.unit:<3} {low:>10.4f} .. {high:<10.4f} "
        line += "" if self.first is None else f"{self.first:>8.2f}"
        if self.at_most is not None:
            line += f"{'ok' if median <= self.at_most else 'MISSED'}: at most {self.at_most:g}"
        if self.at_least is not None:
            line += f"{'ok' if median >= self.at_least else 'MISSED'}: at least {self.at_least:g}"
        return line.rstrip()


def alternate(functions: dict[str, Callable[[], float]]) -> dict[str, Series]:
    """Calls all functions in turn, once to compile, once to warm up, then `--repetitions` times.

    Each round starts with another one, so that none always comes behind the same neighbour.

    Args:
        functions: each does its work and returns the seconds that count.
    """
    names = list(functions)
    series = {name: Series(name, [], first=timed(function)()) for name, function in functions.items()}
    for round_number in range(-1, FLAGS.repetitions):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = functions[name]()
            if round_number >= 0:
                series[name].values.append(seconds)
    for one in series.values():
        one.values = np.array(one.values)
    return series


def timed(function: Callable, *args) -> Callable[[], float]:
    """Returns a function that calls `function(*args)`, waits for the devices and returns the seconds."""

    def measure():
        start = time.perf_counter()
        function(*args)
        tf.test.experimental.sync_devices()
        return time.perf_counter() - start

    return measure


def configure(default_network: str = "32px_sngan"):
    """Parses the configuration that the flags describe, with the networks of `--network` or the default ones."""
    bindings = [
        f"Generator.base_width = {FLAGS.width}",
        f"Discriminator.base_width = {FLAGS.width}",
        f"CoTraining.batch_size = {FLAGS.batch}",
        f"CoTraining.discriminator_steps = {FLAGS.discriminator_steps}",
        "CoTraining.epochs = 1000000",
        # So small that the weights stay about where they start; the time of a step does not depend on it.
        "CoTraining.generator_schedule = @optimization.fixed",
        "CoTraining.discriminator_schedule = @optimization.fixed",
        "optimization.fixed.initial = 1e-6",
        "LInf.epsilon = 0.0625",
        f"cotraining/Attacker.steps = {FLAGS.attack_steps}",
        f"cotraining/Attacker.relative_step_size = {1 / FLAGS.attack_steps}",
    ]
    files = [
        str(REPOSITORY / "gin/robgan.gin"),
        FLAGS.network or str(REPOSITORY / f"gin/networks/{default_network}.gin"),
    ]
    gin.clear_config()
    gin.add_config_file_search_path(str(REPOSITORY))
    command_line.or_fail(lambda: gin.parse_config_files_and_bindings(files, [*bindings, *FLAGS.gin_param]))


def build_stage(precision: str, image_shape: Sequence[int], num_classes: int = 10) -> CoTraining:
    """Builds the players and co-training, as configured, in `precision`."""

    def build():
        generators = [Generator(num_classes, image_shape, name=name) for name in ("generator", "average_generator")]
        return CoTraining(*generators, Discriminator(num_classes, image_shape), num_examples=50000, seed=0)

    with devices.precision(precision):
        return command_line.or_fail(build)


def random_batch(count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns random images [count, S, S, 3], of the side S that the configured networks have, and labels [count]."""
    side = BOTTOM * 2 ** sum(gin.query_parameter("Generator.upsample"))
    return tf.random.uniform([count, side, side, 3], -1, 1), tf.random.uniform([count], 0, 10, tf.int32)


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
    configure()
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


class Clock(keras.callbacks.Callback):
    """Notes the time after each step; to be the last of the callbacks."""

    def on_train_begin(self, logs=None):
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())


def measure_loop() -> list[Series]:
    """Seconds per training step: bare on a ready batch, fed by the data pipeline, and through `fit` with its log.

    A repetition is `--steps` steps, after one that fills the pipeline's buffers and does not count.
    """
    configure("32px_sngan" if FLAGS.data_dir else "16px")
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

    def fit(run_directory):
        clock, checkpoints = Clock(), Checkpoints(run_directory.path / "checkpoints", stage.checkpoint_objects())
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            with MetricsLog(stage, run_directory, every=FLAGS.steps) as log:
                loop = TrainingLoop(stage, log, checkpoints, [], 10**9, 10**9, lambda: 0, dict)
                stage.fit(batches, steps_per_epoch=FLAGS.steps + 1, verbose=0, callbacks=[loop, clock])
        return (clock.times[-1] - clock.times[0]) / FLAGS.steps

    with tempfile.TemporaryDirectory() as folder:
        functions = {
            "bare": lambda: python_loop(lambda: ready),
            "fed": lambda: python_loop(lambda: next(iterator)),
            "fit": lambda: fit(RunDirectory(folder)),
        }
        bare, fed, fitted = alternate(functions).values()
    overheads = [
        Series("fed / bare - 1", fed.values / bare.values - 1, ""),
        Series("fit / bare - 1", fitted.values / bare.values - 1, "", at_most=0.05),
    ]
    return [bare, fed, fitted, *overheads]


def measure_watching() -> list[Series]:
    """A training step on a ready batch: with all metrics and an entry every `--steps` steps, against one without any.

    Where nobody takes the metrics, TensorFlow leaves out what only they need: norms of gradients and weights. In
    seconds of the processor, which other programs disturb less, and of the clock.
    """
    configure("32px_sngan" if FLAGS.data_dir else "16px")
    data = tfds_images("cifar10", data_dir=FLAGS.data_dir) if FLAGS.data_dir else digits()
    stage = build_stage(FLAGS.precision[0], data.image_shape)
    batch = next(iter(training_batches(data.train, stage.images_per_step, steps=1, seed=0)))

    def drop_metrics(batch):
        stage.train_step(batch)

    silent, step = (tf.function(function, autograph=False) for function in (drop_metrics, stage.train_step))
    functions = lambda: silent(batch), lambda: log.add(stage.steps_done + 1, 1, step(batch))

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
    configure()
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
    configure()
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


MEASURES = {
    "update": measure_update,
    "loop": measure_loop,
    "watching": measure_watching,
    "upkeep": measure_upkeep,
    "precision": measure_precision,
    "first_step": measure_first_step,
}


def machine() -> dict:
    """Returns what the figures depend on: processor, devices, versions, load."""
    lines = [line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    cpu = {key.strip(): value.strip() for key, value in lines}
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in cpu.get("flags", "").split()],
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def git_commit() -> str | None:
    """Returns the repository's commit, with "-dirty" where files differ from it; None where there is none."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def benchmark():
    """Measures what the flags say."""
    for flag, allowed in (("measure", tuple(MEASURES)), ("precision", devices.PRECISIONS)):
        if not FLAGS[flag].value or not set(FLAGS[flag].value) <= set(allowed):
            command_line.fail(f"--{flag} takes one or more of {','.join(allowed)}; got {','.join(FLAGS[flag].value)}")
    settings = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
    report = {"git_commit": git_commit(), "settings": settings, "machine": machine(), "measures": {}}
    print("\n".join(f"{name}: {json.dumps(report[name])}" for name in ("git_commit", "settings", "machine")))
    for name in FLAGS.measure:
        series = MEASURES[name]()
        print(f"\n{name:<46} {'median':>10}     {'quartiles':^24} {'first':>8}", *series, sep="\n", flush=True)
        report["measures"][name] = [one.to_json() for one in series]
    if FLAGS.out:
        write_json(pathlib.Path(FLAGS.out), report)


if __name__ == "__main__":
    command_line.define_config_flags()
    flags.declare_key_flag("gin_file")
    flags.declare_key_flag("gin_param")
    flags.DEFINE_list("measure", ["update", "loop", "precision"], f"What to measure, of {','.join(MEASURES)}.")
    flags.DEFINE_string("network", None, "Gin file of the networks; default 32px_sngan.gin, for digits 16px.gin.")
    flags.DEFINE_integer("width", 64, "The networks' base width (ch).", lower_bound=1)
    flags.DEFINE_integer("batch", 64, "Images in a micro-batch.", lower_bound=1)
    flags.DEFINE_list("precision", ["float32", "mixed_bfloat16"], "Precisions; `loop` and `upkeep` take the first.")
    flags.DEFINE_integer("attack_steps", 5, "Gradient steps of the attack.", lower_bound=1)
    flags.DEFINE_integer("discriminator_steps", 5, "Discriminator updates in a training step.", lower_bound=1)
    flags.DEFINE_integer("repetitions", 10, "Warm repetitions.", lower_bound=1)
    flags.DEFINE_integer("steps", 20, "Training steps in a repetition of `loop` and `watching`.", lower_bound=1)
    flags.DEFINE_integer("starts", 3, "Processes that `first_step` starts, one after the other.", lower_bound=1)
    flags.DEFINE_string("data_dir", None, "TFDS folder with CIFAR-10 for `loop`; the digits at 16 px if not given.")
    flags.DEFINE_string("out", None, "JSON file for all figures.")
    command_line.main(benchmark)
