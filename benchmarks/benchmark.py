"""Measures speed and memory of training and attack, alone and against others: `--measure=update,loop,precision,...`.

    python benchmarks/benchmark.py --measure=peer --out=peer.json --plot=peer.png

What is compared runs in one process and in alternation, so that whatever else the machine does hits all alike; ratios
are taken round by round. First calls, which trace and compile, are timed apart. See benchmarks/README.md; the
parts are in benchmarks/measures/.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import tensorflow as tf
from measures import plots
from measures.device import measure_device
from measures.evaluation import measure_evaluation
from measures.forms import measure_forms
from measures.growth import AXES, measure_growth
from measures.iterators import measure_iterator_end
from measures.machine import machine
from measures.peer import SIZES, SIZES_OF_CPUS, measure_peer
from measures.peers import PARTS, PEERS
from measures.tensorflows import measure_tensorflows
from measures.training import (
    measure_first_step,
    measure_loop,
    measure_precision,
    measure_update,
    measure_upkeep,
    measure_watching,
)

from robgan_tf.data.files import write_json
from robgan_tf.run import devices
from robgan_tf.run.machine import cores
from robgan_tf.run.provenance import git_commit

FLAGS = flags.FLAGS
MEASURES = {
    "device": measure_device,
    "update": measure_update,
    "loop": measure_loop,
    "watching": measure_watching,
    "upkeep": measure_upkeep,
    "precision": measure_precision,
    "first_step": measure_first_step,
    "iterator_end": measure_iterator_end,
    "peer": measure_peer,
    "growth": measure_growth,
    "evaluation": measure_evaluation,
    "forms": measure_forms,
    "tensorflows": measure_tensorflows,
}


def check_flags():
    """Ends the program where a flag names something that there is not."""
    lists = {"measure": MEASURES, "precision": devices.PRECISIONS, "sizes": SIZES, "parts": PARTS, "growth": AXES}
    for flag, allowed in lists.items():
        if not FLAGS[flag].value or not set(FLAGS[flag].value) <= set(allowed):
            command_line.fail(f"--{flag} takes one or more of {','.join(allowed)}; got {','.join(FLAGS[flag].value)}")
    if not set(FLAGS.peers) <= set(PEERS):
        command_line.fail(f"--peers takes some of {','.join(PEERS)}; got {','.join(FLAGS.peers)}")
    if {"peer", "growth"} & set(FLAGS.measure) and "mixed_float16" in FLAGS.precision:
        command_line.fail("--precision of peer and growth is float32 or mixed_bfloat16: no peer has mixed_float16")
    if FLAGS.plot:
        plots.need_matplotlib()


def benchmark():
    """Measures what the flags say."""
    check_flags()
    # Else PyTorch's threads spin while they wait for each other. Where other processes take turns with them on the
    # processors, that has made small networks a hundred times slower; it would also take processors from TensorFlow.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TensorFlow and JAX would each take all of a GPU's memory, and leave none to the others.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    settings = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
    settings["OMP_WAIT_POLICY"] = os.environ["OMP_WAIT_POLICY"]
    report = {"git_commit": git_commit(), "settings": settings, "machine": machine(), "measures": {}}
    print("\n".join(f"{name}: {json.dumps(report[name])}" for name in ("git_commit", "settings", "machine")))
    measured = []
    for name in FLAGS.measure:
        print(f"\n{name:<46} {'median':>10}     {'quartiles':^24} {'first':>8}", flush=True)
        report["measures"][name] = []
        for one in MEASURES[name]():
            print(one, flush=True)
            measured.append(one)
            report["measures"][name].append(one.to_json())
            if FLAGS.out:  # each time, since some measures take an hour
                write_json(pathlib.Path(FLAGS.out), report)
    if FLAGS.plot:
        plots.plot(measured, pathlib.Path(FLAGS.plot))


def define_flags(values):
    command_line.define_config_flags(values)
    flags.declare_key_flag("gin_file")
    flags.declare_key_flag("gin_param")
    flags.DEFINE_list(
        "measure", ["update", "loop", "precision"], f"What to measure, of {','.join(MEASURES)}.", flag_values=values
    )
    flags.DEFINE_string(
        "network", None, "Gin file of the networks; default 32px_sngan.gin, for digits 16px.gin.", flag_values=values
    )
    flags.DEFINE_integer("width", 64, "The networks' base width (ch).", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "batch", 64, "Images in a micro-batch; `peer` has its own for each size.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_list(
        "precision",
        ["float32", "mixed_bfloat16"],
        "Precisions; some measures take the first alone.",
        flag_values=values,
    )
    flags.DEFINE_integer("attack_steps", 5, "Gradient steps of the attack.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "discriminator_steps", 5, "Discriminator updates in a training step.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer("repetitions", 10, "Warm repetitions.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "steps", 20, "Training steps in a repetition of `loop` and `watching`.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "starts",
        3,
        "Processes that are started one after the other, for first steps and memory.",
        1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir", None, "TFDS folder with CIFAR-10 for `loop`; the digits at 16 px if not given.", flag_values=values
    )
    flags.DEFINE_list(
        "sizes", list(SIZES_OF_CPUS), f"Sizes (pixels_width) for `peer`, of {','.join(SIZES)}.", flag_values=values
    )
    flags.DEFINE_list("parts", list(PARTS), "Parts of the training for `peer`.", flag_values=values)
    flags.DEFINE_list(
        "peers",
        ["well_written", "naive"],
        f"Peers for `peer` and `growth`: {','.join(PEERS)}.",
        flag_values=values,
    )
    flags.DEFINE_list("growth", list(AXES), "What grows in `growth`.", flag_values=values)
    flags.DEFINE_string("other_python", None, "Python of the other TensorFlow, for `tensorflows`.", flag_values=values)
    flags.DEFINE_float("turn", 3, "Seconds of a turn of `tensorflows`, about.", lower_bound=0, flag_values=values)
    flags.DEFINE_string("saved_model", None, "Exported classifier for `evaluation`.", flag_values=values)
    flags.DEFINE_integer("threads", cores(), "Threads of TensorFlow and the peers.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("out", None, "JSON file for all figures.", flag_values=values)
    flags.DEFINE_string("plot", None, "Image file for plots of `peer` and `growth`.", flag_values=values)


if __name__ == "__main__":
    command_line.main(benchmark, define_flags)
