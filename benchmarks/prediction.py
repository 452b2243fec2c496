"""Compares the predicted seconds of a training step with those of a real run: `python benchmarks/prediction.py`.

A round of a configuration is a prediction, as `--dry_run` makes it, in a process of its own, and behind it a real
`python -m robgan_tf.train` of as many steps as take `--seconds` by the first prediction, whose `metrics.jsonl` tells
what a step took. Both by the clock, which other programs disturb, and by the seconds of all processors. The steps that
count lie between the first entry of the metrics, before which graphs are traced, and the last but one, behind which
the stage ends; there are no checkpoints, validations or image grids between them. See docs/dry_run.md. Linux only.

`--gin_file` and `--gin_param` measure another configuration, both stages of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

from robgan_tf.data.files import write_json

FLAGS = flags.FLAGS
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
DIGITS = "gin/digits.gin"


def networks(name: str, size: int, width: int, *params: str) -> tuple[list[str], list[str]]:
    """Files and bindings of the digits at `size` pixels, with the networks `name` of that width."""
    sizes = [f"digits.image_size = {size}", f"Generator.base_width = {width}", f"Discriminator.base_width = {width}"]
    return [DIGITS, f"gin/networks/{name}.gin"], [*sizes, *params]


# Name: stage, files and bindings. Nothing in the prediction was chosen by any of them.
CONFIGURATIONS = {
    "digits": ("cotraining", ([DIGITS], [])),
    "digits_finetuning": ("finetuning", ([DIGITS], [])),
    "32px_ch8_b16_1_attack_step": (
        "cotraining",
        networks(
            "32px_sngan",
            32,
            8,
            "CoTraining.batch_size = 16",
            "cotraining/Attacker.steps = 1",
            "cotraining/Attacker.relative_step_size = 1.0",
        ),
    ),
    "32px_ch16_b64": ("cotraining", networks("32px_sngan", 32, 16, "CoTraining.batch_size = 64")),
    "32px_ch16_b64_bfloat16": (
        "cotraining",
        networks("32px_sngan", 32, 16, "CoTraining.batch_size = 64", "configure.precision = 'mixed_bfloat16'"),
    ),
    "32px_ch8_b64_2_parts_finetuning": (
        "finetuning",
        networks("32px_sngan", 32, 8, "FineTuning.batch_size = 64", "FineTuning.accumulation = 2"),
    ),
    "wrn_10_1_finetuning": ("finetuning", (["gin/strongest/digits.gin"], [])),
    "64px_ch8_b16": ("cotraining", networks("64px", 64, 8, "CoTraining.batch_size = 16")),
    # So long steps that a part of each is timed.
    "32px_ch32_b64_5_updates": (
        "cotraining",
        networks("32px_sngan", 32, 32, "CoTraining.batch_size = 64", "CoTraining.discriminator_steps = 5"),
    ),
    "32px_ch32_b256_finetuning": ("finetuning", networks("32px_sngan", 32, 32, "FineTuning.batch_size = 256")),
}
# Nothing but steps between two entries of the metrics.
UNDISTURBED = (
    "Experiment.sample_every = 1000000",
    "Experiment.validate_every = 1000000",
    "Upkeep.checkpoint_every = 1000000",
    "Upkeep.checkpoint_minutes = 1e6",
)
COMMANDS = {"cotraining": "cotrain", "finetuning": "finetune"}
OPTIONS = {"cotraining": "CoTraining", "finetuning": "FineTuning"}
ENTRIES = 5
# By the clock, and of all processors.
KINDS = ("seconds", "cpu")


def predict_here() -> dict:
    """Predicts the stages of the configuration that the flags name, in this process; returns them by name."""
    experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
    from robgan_tf.experiment.machine_speed import matrix_product_rate, reader_rate
    from robgan_tf.experiment.needs import step_needs
    from robgan_tf.experiment.prediction import time_step
    from robgan_tf.keras2 import keras

    rate = matrix_product_rate(keras.mixed_precision.global_policy().compute_dtype)
    found, stages = {}, []
    for stage in experiment.training_stages:
        stages.append(stage.name_of_stage)
        if FLAGS.stage in ("", stage.name_of_stage):
            need = step_needs(stage, experiment.data.image_shape, experiment.strategy)
            waiting = stage.images_per_step / reader_rate(experiment, stage)
            step = time_step(experiment, stage, need, rate, waiting)
            found[stage.name_of_stage] = {
                "seconds": step.seconds,
                "cpu": step.timing.cpu / step.share,
                "share": step.share,
                "stages": list(stages),
                "epochs_of_a_step": 1 / stage.steps_per_epoch,
            }
    return found


def run_python(arguments: list[str], files: list[str], params: list[str], output) -> subprocess.Popen:
    """Starts this Python with the flags of a configuration; what it prints goes to the file `output`."""
    command = [sys.executable, *arguments]
    command += [f"--gin_file={REPOSITORY / file}" for file in files] + [f"--gin_param={param}" for param in params]
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment)


def printed(process: subprocess.Popen, output) -> str:
    """Waits for the end of a process and returns what it printed; ends the program where it failed."""
    status = process.wait()
    output.seek(0)
    text = output.read().strip()
    if status:
        command_line.fail(f"{' '.join(process.args)} failed: {text[-2000:]}")
    return text


def predict(stage: str, files: list[str], params: list[str]) -> dict:
    """Predicts a stage (all if empty) in a process of its own; see `predict_here`."""
    with tempfile.TemporaryFile("w+") as output:
        process = run_python([__file__, "--predict_here", f"--stage={stage}"], files, params, output)
        return json.loads(printed(process, output).splitlines()[-1])


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of `metrics.jsonl`: steps done, and seconds of the clock and of all processors at its end."""

    step: int
    wall: float
    cpu: float


def seconds_of_a_step(entries: list[Entry]) -> tuple[float, float]:
    """Returns seconds of the clock and of all processors, between the first entry and the last but one."""
    first, last = entries[0], entries[-2]
    steps = last.step - first.step
    return (last.wall - first.wall) / steps, (last.cpu - first.cpu) / steps


def train(stage: str, steps: int, predicted: dict, files: list[str], params: list[str]) -> tuple[float, float]:
    """Trains so many steps by the real command; returns seconds of a step, see `seconds_of_a_step`."""
    stages = predicted["stages"]
    epochs = {name: 1e-6 for name in stages}  # a single step
    epochs[stage] = steps * predicted["epochs_of_a_step"]
    bound = [f"{OPTIONS[name]}.epochs = {value}" for name, value in epochs.items()]
    bound += [*UNDISTURBED, f"Upkeep.log_every = {steps // ENTRIES}"]
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/output", "w+") as output:
        command = ["-m", "robgan_tf.train", f"--run_dir={folder}/run"]
        command.append(f"--stages={','.join(COMMANDS[name] for name in stages)}")
        process = run_python(command, files, [*params, *bound], output)
        entries, running, cpu = [], True, 0.0
        while running:
            time.sleep(0.005)
            running = process.poll() is None
            cpu = processor_seconds(process.pid) if running else cpu
            known = [entry for entry in read_entries(pathlib.Path(folder) / "run/metrics.jsonl") if entry[0] == stage]
            entries += [Entry(step, wall, cpu) for _, step, wall in known[len(entries) :]]
        text = printed(process, output)
        if len(entries) < ENTRIES:
            command_line.fail(f"{stage} wrote {len(entries)} entries of {ENTRIES}: {text[-2000:]}")
        return seconds_of_a_step(entries)


def read_entries(metrics: pathlib.Path) -> list[tuple[str, int, float]]:
    """Returns stage, step and seconds of the entries that are complete."""
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(entry["stage"], entry["step"], entry["wall_seconds"]) for entry in entries]


def processor_seconds(process: int) -> float:
    """Returns the seconds of all processors that a process has taken so far."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


@dataclasses.dataclass
class Comparison:
    """Predictions and real runs of a stage of a configuration, in turn.

    Attributes:
        stage: its name.
        files: of the configuration.
        params: its bindings.
        steps: of each real run; None before the first prediction.
        rounds: what each round has found.
    """

    stage: str
    files: list[str]
    params: list[str]
    steps: int | None = None
    rounds: list[dict] = dataclasses.field(default_factory=list)

    def measure(self):
        """Predicts, and trains for real."""
        predicted = predict(self.stage, self.files, self.params)[self.stage]
        if self.steps is None:
            self.steps = max(round(FLAGS.seconds / predicted["seconds"] / ENTRIES), 1) * ENTRIES
        seconds, cpu = train(self.stage, self.steps, predicted, self.files, self.params)
        self.rounds.append({"predicted": predicted, "seconds": seconds, "cpu": cpu, "load": os.getloadavg()[0]})

    def error(self, kind: str) -> float:
        """Returns predicted / real - 1 of the "seconds" or of the "cpu", the median over the rounds."""
        return float(np.median([one["predicted"][kind] / one[kind] - 1 for one in self.rounds]))

    def to_json(self) -> dict:
        """Returns all that is known."""
        return {**dataclasses.asdict(self), **{f"error_by_{kind}": self.error(kind) for kind in KINDS}}

    def row(self, name: str) -> str:
        """Returns a row of the table, medians over the rounds."""
        cells = []
        for kind in KINDS:
            values = [[one["predicted"][kind], one[kind]] for one in self.rounds]
            cells += [f"{value:.3g}" for value in np.median(values, axis=0)] + [f"{self.error(kind):+.0%}"]
        return f"| {name} | {' | '.join(cells)} |"


def main():
    if FLAGS.predict_here:
        print(json.dumps(predict_here()))
        return
    if FLAGS.gin_file:
        files, params = FLAGS.gin_file, FLAGS.gin_param
        chosen = {stage: (stage, (files, params)) for stage in predict("", files, params)}
    else:
        unknown = set(FLAGS.configurations) - set(CONFIGURATIONS)
        if unknown:
            known = ", ".join(CONFIGURATIONS)
            command_line.fail(f"--configurations: unknown {', '.join(sorted(unknown))}; known: {known}")
        chosen = {name: CONFIGURATIONS[name] for name in FLAGS.configurations}
    from robgan_tf.run.machine import machine
    from robgan_tf.run.provenance import provenance

    comparisons = {name: Comparison(stage, *configuration) for name, (stage, configuration) in chosen.items()}
    print("| configuration | predicted, s | real, s | error | predicted, CPU s | real, CPU s | error |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for _ in range(FLAGS.rounds):
        for name, comparison in comparisons.items():
            comparison.measure()
            print(comparison.row(name), flush=True)  # of the rounds so far
            if FLAGS.out:  # each time, since all of them take half an hour
                results = {name: one.to_json() for name, one in comparisons.items() if one.rounds}
                settings = {"rounds": FLAGS.rounds, "seconds": FLAGS.seconds}
                report = {"settings": settings, "results": results, "machine": machine(), **provenance()}
                write_json(pathlib.Path(FLAGS.out), report)


def define_flags(values):
    command_line.define_config_flags(values)
    flags.DEFINE_list("configurations", list(CONFIGURATIONS), "Which to measure.", flag_values=values)
    flags.DEFINE_integer("rounds", 3, "Predictions, with a training each.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("seconds", 15, "Seconds that a training takes, about.", lower_bound=0, flag_values=values)
    flags.DEFINE_string("out", None, "JSON file for the results.", flag_values=values)
    flags.DEFINE_bool("predict_here", False, "Predict in this very process, and print it as JSON.", flag_values=values)
    flags.DEFINE_string("stage", "", "The stage for --predict_here; all if empty.", flag_values=values)


if __name__ == "__main__":
    command_line.main(main, define_flags)
