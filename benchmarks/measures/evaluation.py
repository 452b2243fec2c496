"""PGD of this project against that of foolbox and of ART, on one SavedModel and the same images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import flags
from attack_libraries import Setting, art_pgd, foolbox_pgd, our_worst_case, right

from measures.machine import is_there
from measures.peers import EPSILON, EVALUATION_STEPS, RELATIVE_STEP_SIZE
from measures.timing import Series
from robgan_tf import command_line
from robgan_tf.players.attacker.pgd import Attacker
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.serving.loading import load_logits

FLAGS = flags.FLAGS
LIBRARIES = {"foolbox": foolbox_pgd, "adversarial-robustness-toolbox": art_pgd}
REQUIRED = {"foolbox": 2.0, "adversarial-robustness-toolbox": 3.0}
POINTS = 0.5  # largest accepted difference of two accuracies


def measure_evaluation() -> Iterator[Series]:
    """PGD-20 without random start: seconds for `--batch` images, ratios of throughput, and accuracies.

    Each round takes other images, and each library the same ones.
    """
    if not FLAGS.saved_model or not FLAGS.gin_file:
        command_line.fail("--measure=evaluation needs --saved_model=DIR, and --gin_file=F for the data")
    classifier = command_line.or_fail(lambda: load_logits(FLAGS.saved_model))
    experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
    needed = (1 + FLAGS.repetitions) * FLAGS.batch
    if needed > len(experiment.data.test):
        command_line.fail(
            f"--batch={FLAGS.batch} and --repetitions={FLAGS.repetitions} need {needed} test images, with one batch to "
            f"warm up; there are {len(experiment.data.test)}"
        )
    examples = experiment.data.test.take(needed, seed=0)
    signature = [tf.TensorSpec([None, *examples.image_shape], tf.float32)]
    logits = tf.function(classifier, input_signature=signature, autograph=False)
    steps = {"steps": EVALUATION_STEPS, "relative_step_size": RELATIVE_STEP_SIZE, "random_start": False}
    setting = Setting(logits, experiment.data.num_classes, EPSILON, batch_size=FLAGS.batch, seed=0, **steps)
    pgd = Attacker(LInf(EPSILON), EVALUATION_STEPS, relative_step_size=RELATIVE_STEP_SIZE)
    # As our evaluation does it: what is wrong already is not attacked.
    makers = {
        "ours": lambda setting: our_worst_case(setting, [pgd]),
        **{library: make for library, make in LIBRARIES.items() if is_there(library)},
    }
    if len(makers) == 1:
        command_line.fail("there is no library to compare with: pip install -c constraints-2.15.txt -e '.[bench]'")
    attacks = {name: make(setting) for name, make in makers.items()}

    series, stands, names = {}, {name: [] for name in attacks}, list(attacks)
    for round_number in range(1 + FLAGS.repetitions):
        chosen = examples.select(np.arange(round_number * FLAGS.batch, (round_number + 1) * FLAGS.batch))
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            adversarial = attacks[name](chosen)  # arrays: there is nothing to wait for
            seconds = time.perf_counter() - start
            if round_number == 0:
                series[name] = Series(f"PGD-{EVALUATION_STEPS}: {name}", [], first=seconds, images=FLAGS.batch)
                continue
            series[name].values.append(seconds)
            stands[name].append(right(setting, adversarial, chosen))
    for name in names:
        yield dataclasses.replace(series[name], about={"what": name})
    for name in names[1:]:
        ratio = np.array(series[name].values) / np.array(series["ours"].values)
        yield Series(f"throughput, ours / {name}", ratio, "", at_least=REQUIRED[name])
    accuracy = {name: 100 * np.mean(rounds) for name, rounds in stands.items()}
    for name in names:
        yield Series(f"accuracy: {name}", [accuracy[name]], "%")
    for name in names[1:]:
        difference = abs(accuracy["ours"] - accuracy[name])
        yield Series(f"accuracy, |ours - {name}|, points", [difference], "", at_most=POINTS)
