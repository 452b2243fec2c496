"""Compares the estimated memory of a training step with a measured one: `python benchmarks/memory.py`.

Each configuration is measured in a process of its own: the step is traced, the resident memory is taken, then the step
is run `--steps` times; what the peak of the resident memory is above that is "measured". A second process runs the same
step with a batch of 1: what it grows by beyond its own estimate are TensorFlow's graphs, kernels and threads, which
depend on the number of operations and not on the images, and are subtracted. See docs/dry_run.md. Linux only.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import gin
import tensorflow as tf

from robgan_tf.data.files import write_json
from robgan_tf.experiment import build as _experiment  # noqa: F401  (makes everything known to gin)
from robgan_tf.experiment import needs as plan
from robgan_tf.players.classifiers.class_branch import ClassBranch
from robgan_tf.players.discriminator import Discriminator
from robgan_tf.players.generator import Generator
from robgan_tf.run import devices
from robgan_tf.run.machine import machine
from robgan_tf.run.provenance import provenance
from robgan_tf.training.cotraining import CoTraining
from robgan_tf.training.finetuning import FineTuning
from robgan_tf.training.generated import FromGenerator

FLAGS = flags.FLAGS
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CLASSES = 10
BFLOAT16 = "configure.precision = 'mixed_bfloat16'"
RECOMPUTE = ["Generator.recompute = True", "Discriminator.recompute = True"]
# Name: network, size in pixels, width, batch, further bindings.
CONFIGURATIONS = {
    "32px_ch16_b64": ("32px_sngan", 32, 16, 64, []),
    "32px_ch32_b64": ("32px_sngan", 32, 32, 64, []),
    "32px_ch32_b64_no_attack": ("32px_sngan", 32, 32, 64, ["CoTraining.attacker = None"]),
    "32px_ch32_b64_bfloat16": ("32px_sngan", 32, 32, 64, [BFLOAT16]),
    "32px_ch32_b64_5_updates": ("32px_sngan", 32, 32, 64, ["CoTraining.discriminator_steps = 5"]),
    "32px_ch32_b64_4_parts": ("32px_sngan", 32, 32, 64, ["CoTraining.accumulation = 4"]),
    "32px_ch32_b64_recompute": ("32px_sngan", 32, 32, 64, RECOMPUTE),
    "64px_ch16_b32": ("64px", 64, 16, 32, []),
    "64px_ch32_b32": ("64px", 64, 32, 32, []),
    "128px_ch16_b16": ("128px_143", 128, 16, 16, []),
    "finetuning_32px_ch32_b64": ("32px_sngan", 32, 32, 64, []),
}
BINDINGS = [
    "CoTraining.epochs = 1000",
    "CoTraining.discriminator_steps = 1",
    "CoTraining.generator_schedule = @optimization.fixed",
    "CoTraining.discriminator_schedule = @optimization.fixed",
    "FineTuning.epochs = 1000",
    "FineTuning.fake_weight = 0.5",
    "FineTuning.schedule = @optimization.fixed",
    "optimization.fixed.initial = 1e-4",
    "LInf.epsilon = 0.0625",
    "cotraining/Attacker.steps = 3",
    "cotraining/Attacker.relative_step_size = 0.4",
]


def resident(field: str) -> int:
    """Returns bytes of this process's memory: "VmRSS" now, or "VmHWM", the most since the last `forget_peak`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def forget_peak():
    """Makes VmHWM start anew."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def measure_here(name: str, batch: int) -> dict:
    """Measures a configuration in this process, with a batch of `batch`; returns bytes."""
    network, size, width, _, bindings = CONFIGURATIONS[name]
    stage_class = FineTuning if name.startswith("finetuning") else CoTraining
    gin.add_config_file_search_path(str(REPOSITORY))
    gin.parse_config_files_and_bindings(
        [str(REPOSITORY / "gin/robgan.gin"), str(REPOSITORY / f"gin/networks/{network}.gin")],
        [
            *BINDINGS,
            f"Generator.base_width = {width}",
            f"Discriminator.base_width = {width}",
            f"{stage_class.__name__}.batch_size = {batch}",
            # Parts divide the batch.
            *(bindings if batch > 1 else [text for text in bindings if "accumulation" not in text]),
        ],
    )
    strategy, shape = devices.configure(), (size, size, 3)
    generator, discriminator = Generator(CLASSES, shape), Discriminator(CLASSES, shape)
    if stage_class is CoTraining:
        stage = CoTraining(generator, Generator(CLASSES, shape), discriminator, num_examples=10_000, seed=0)
    else:
        stage = FineTuning(
            ClassBranch(discriminator),
            FromGenerator(generator),
            num_examples=10_000,
            seed=0,
        )
    needs = plan.step_needs(stage, shape, strategy)
    images = tf.random.stateless_uniform([stage.images_per_step, *shape], [0, 0], -1, 1)
    labels = tf.zeros([stage.images_per_step], tf.int32)
    step = tf.function(lambda *batch: stage.train_step(batch), autograph=False)
    traced = step.get_concrete_function(images, labels)
    forget_peak()
    before = resident("VmRSS")
    for _ in range(FLAGS.steps):
        traced(images, labels)
    measured = resident("VmHWM") - before
    return {"intermediate": needs.peak, "estimate": plan.with_workspace(needs.peak), "measured": measured}


def measure(name: str) -> dict:
    """Measures a configuration and its control in processes of their own; returns MiB and the error."""
    results = []
    for batch in (CONFIGURATIONS[name][3], 1):
        command = [sys.executable, __file__, f"--one={name}", f"--batch={batch}", f"--steps={FLAGS.steps}"]
        results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    whole, control = results
    own = control["measured"] - control["estimate"]
    of_the_step = whole["measured"] - own
    mebibytes = {"measured": whole["measured"], "tensorflow": own, "step": of_the_step}
    mebibytes.update({"intermediate": whole["intermediate"], "estimate": whole["estimate"]})
    result = {key: round(value / 2**20, 1) for key, value in mebibytes.items()}
    return {**result, "error": round(whole["estimate"] / of_the_step - 1, 3)}


def main():
    if FLAGS.one:
        print(json.dumps(measure_here(FLAGS.one, FLAGS.batch)))
        return
    unknown = set(FLAGS.configurations) - set(CONFIGURATIONS)
    if unknown:
        command_line.fail(f"--configurations: unknown {', '.join(sorted(unknown))}; known: {', '.join(CONFIGURATIONS)}")
    results = {}
    print("| configuration | measured | TensorFlow's own | the step's | intermediate results | estimate | error |")
    print("|---|---|---|---|---|---|---|")
    for name in FLAGS.configurations:
        row = results[name] = measure(name)
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in list(row.values())[:-1])} | {row['error']:+.0%} |")
        sys.stdout.flush()
    if FLAGS.out:
        environment = {
            key: value for key, value in os.environ.items() if key.startswith(("MALLOC_", "TF_ENABLE_", "TF_NUM_"))
        }
        report = {"environment": environment, "unit": "MiB", "results": results, "machine": machine(), **provenance()}
        write_json(pathlib.Path(FLAGS.out), report)


def define_flags(values):
    flags.DEFINE_list("configurations", list(CONFIGURATIONS), "Which to measure.", flag_values=values)
    flags.DEFINE_integer("steps", 2, "Training steps of each measurement.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("out", None, "JSON file for the results.", flag_values=values)
    flags.DEFINE_string(
        "one", None, "Measure this configuration in this very process, and print bytes as JSON.", flag_values=values
    )
    flags.DEFINE_integer("batch", 1, "Batch for --one.", flag_values=values)


if __name__ == "__main__":
    command_line.main(main, define_flags)
