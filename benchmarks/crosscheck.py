"""Attacks one exported classifier with this project and with independent libraries, side by side.

    python benchmarks/crosscheck.py --saved_model=runs/digits/export/1 --gin_file=gin/digits.gin --epsilon=0.2

PGD of this project, of foolbox and of the Adversarial Robustness Toolbox (ART) get the same images, steps and epsilon.
With --autoattack, AutoAttack's standard version is compared with the attacks of the same names that the configuration
gives to the evaluation, each by itself (l-inf) and the worst case of all: add --gin_file=gin/evaluation/standard.gin.
All results are judged by the same code. Needs
`pip install -c constraints-2.15.txt -e '.[crosscheck,autoattack]'`, or one of the two extras. See docs/evaluation.md.
"""

from __future__ import annotations

import functools
import importlib.metadata
import pathlib
import time
from collections.abc import Callable

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import numpy as np
import tensorflow as tf
from attack_libraries import Setting, art_pgd, autoattack, foolbox_pgd, our_pgd, our_worst_case, pixels, right

from robgan_tf.data.datasets import Examples
from robgan_tf.data.files import write_json
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE, epsilon_255
from robgan_tf.players.attacker.transfer import Transfer
from robgan_tf.run.provenance import provenance
from robgan_tf.serving.loading import load_logits

FLAGS = flags.FLAGS
# Largest distance beyond epsilon or range that is put down to float32: AutoAttack counts in [0, 1], so that pixels are
# rounded on the way there and back.
ROUNDING = 1e-6
# Largest accepted difference of two accuracies, in points.
PGD_POINTS, WORST_CASE_POINTS = 0.5, 1.0
# AutoAttack's standard version, in its order.
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
EXTRAS = {"adversarial-robustness-toolbox": "crosscheck", "foolbox": "crosscheck", "pyautoattack": "autoattack"}


def judge(setting: Setting, examples: Examples, name: str, library: str, attack: Callable) -> dict:
    """Runs an attack and judges its images as arrays: one outside of ball or range is no success of the attack."""
    version = provenance()["git_commit"] if library == "robgan_tf" else importlib.metadata.version(library)
    print(f"{name} ({library} {version}) ...", flush=True)
    start, cpu_start = time.monotonic(), time.process_time()
    adversarial = attack(examples).astype(np.float32)
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start
    clean = pixels(examples)
    distance = setting.ball.size(adversarial.astype(np.float64) - clean).numpy()
    inside = distance - setting.epsilon <= ROUNDING * setting.ball.norm_of_ones(clean[0].size)  # NaN compares false
    inside &= np.abs(adversarial).max(axis=(1, 2, 3)) - PIXEL_RANGE[1] <= ROUNDING
    stands = right(setting, clean, examples) & (right(setting, adversarial, examples) | ~inside)
    return {
        "attack": name,
        "library": library,
        "version": version,
        "accuracy": float(stands.mean()),
        "outside": int(np.sum(~inside)),
        "largest_distance": float(distance.max()),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "images_per_second": round(len(stands) / seconds, 2),
        "stands": stands.astype(int).tolist(),
    }


def compare(rows: list[dict], most_points: float) -> None:
    """Adds to each row but the first what it and the first, ours, say of single examples, and whether that is well."""
    ours = np.array(rows[0]["stands"], bool)
    for row in rows[1:]:
        theirs = np.array(row["stands"], bool)
        row["ours_minus_theirs_points"] = round(100 * (ours.mean() - theirs.mean()), 4)
        row["fell_to_ours_alone"] = np.flatnonzero(~ours & theirs).tolist()
        row["fell_to_theirs_alone"] = np.flatnonzero(ours & ~theirs).tolist()
        # Of the processor's time, all cores together: the clock on the wall counts what else the machine does.
        row["times_as_long_as_ours"] = round(row["cpu_seconds"] / max(rows[0]["cpu_seconds"], 0.01), 2)
        # In both directions: ours much lower would mean that the two are not given the same.
        row["verdict"] = "ok" if abs(row["ours_minus_theirs_points"]) <= most_points else "MISSED"


def markdown(rows: list[dict]) -> str:
    """Returns the table for people."""
    lines = [
        "| attack | accuracy | ours - theirs, points | fell to ours alone | to theirs alone | outside | s "
        "| CPU s | times ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        compared, longer = "| | | ", ""
        if "verdict" in row:
            compared = f"| {row['ours_minus_theirs_points']:+.2f} {row['verdict']} "
            compared += f"| {len(row['fell_to_ours_alone'])} | {len(row['fell_to_theirs_alone'])} "
            longer = f"{row['times_as_long_as_ours']:.1f} "
        name = f"{row['attack']} ({row['library']} {str(row['version'])[:12]})"
        lines.append(
            f"| {name} | {row['accuracy']:.2%} {compared}| {row['outside']} | {row['seconds']:.1f} "
            f"| {row['cpu_seconds']:.1f} | {longer}|"
        )
    return "\n".join(lines)


def is_installed(library: str) -> bool:
    """Whether a library can be compared with; says what to do where it can't."""
    try:
        importlib.metadata.version(library)
        return True
    except importlib.metadata.PackageNotFoundError:
        print(f"{library} is not installed and left out: pip install -c constraints-2.15.txt -e '.[{EXTRAS[library]}]'")
        return False


def crosscheck():
    """Does what the flags say."""
    if not FLAGS.saved_model or not FLAGS.gin_file:
        command_line.fail("give --saved_model=DIR and --gin_file=F, for the data")
    others = {"foolbox": foolbox_pgd, "adversarial-robustness-toolbox": art_pgd}
    wanted = FLAGS.pgd and FLAGS.norm == "linf"
    others = {library: make for library, make in others.items() if wanted and is_installed(library)}
    with_autoattack = FLAGS.autoattack and is_installed("pyautoattack")
    if not others and not with_autoattack:
        command_line.fail("there is no library to compare with")
    classifier = command_line.or_fail(lambda: load_logits(FLAGS.saved_model))
    experiment = command_line.build_experiment(FLAGS.gin_file, FLAGS.gin_param)
    # Not those that a network of their own has to be trained for.
    attacks = [attack for attack in experiment.evaluation.attacks if not isinstance(attack, Transfer)]
    for attack in attacks if with_autoattack else ():
        if attack.threat_model.norm != FLAGS.norm:
            command_line.fail(f"--norm={FLAGS.norm} and {attack.name} in {attack.threat_model.norm}: give the same")
    examples = experiment.data.test.take(FLAGS.examples, FLAGS.seed)
    signature = [tf.TensorSpec([None, *examples.image_shape], tf.float32)]
    logits = tf.function(classifier, input_signature=signature, autograph=False)
    names = ("norm", "epsilon", "steps", "relative_step_size", "random_start", "batch_size", "seed")
    setting = Setting(logits, experiment.data.num_classes, **{name: FLAGS[name].value for name in names})
    clean = command_line.or_fail(lambda: right(setting, pixels(examples), examples).mean())
    ball = f"epsilon {setting.epsilon:g} on [-1, 1] = {epsilon_255(setting.epsilon):.2f}/255"
    print(f"{len(examples)} test images of {experiment.data.name}, clean accuracy {clean:.2%}, {setting.norm}, {ball}")

    rows = []
    if others:
        judged = functools.partial(judge, setting, examples, f"PGD-{setting.steps}")
        for library, make in {"robgan_tf": our_pgd, **others}.items():
            attack = command_line.or_fail(lambda make=make: make(setting))
            attack(examples.select(np.arange(min(len(examples), setting.batch_size))))  # compiles
            rows.append(judged(library, attack))
        compare(rows, PGD_POINTS)
    if with_autoattack:
        standard = [attack for attack in attacks if attack.name in STANDARD]
        for attack in standard if setting.norm == "linf" and FLAGS.each else ():
            pair = [judge(setting, examples, attack.name, "robgan_tf", our_worst_case(setting, [attack]))]
            theirs = autoattack(setting, only=attack.name)
            pair.append(judge(setting, examples, attack.name, "pyautoattack", theirs))
            compare(pair, PGD_POINTS)
            rows += pair
        worst_case = our_worst_case(setting, attacks)
        pair = [judge(setting, examples, "worst case", "robgan_tf", worst_case)]
        pair.append(judge(setting, examples, "AutoAttack standard", "pyautoattack", autoattack(setting)))
        compare(pair, WORST_CASE_POINTS)
        rows += pair
    print(f"\n{markdown(rows)}")
    if FLAGS.out:
        settings = {name: FLAGS[name].value for name in (*names, "saved_model", "gin_file", "gin_param")}
        settings["epsilon_255"] = epsilon_255(setting.epsilon)
        report = {"dataset": experiment.data.name, "examples": len(examples), "clean": float(clean)}
        for row in rows:
            row["stands"] = "".join(map(str, row["stands"]))  # on one line
        write_json(pathlib.Path(FLAGS.out), {**report, "settings": settings, **provenance(), "rows": rows})
        pathlib.Path(FLAGS.out).with_suffix(".md").write_text(f"{markdown(rows)}\n", encoding="utf-8")
        print(f"\nwrote {FLAGS.out}, and the table beside it")


def define_flags(values):
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "saved_model", None, "Folder of an exported classifier, e.g. runs/digits/export/1.", flag_values=values
    )
    flags.DEFINE_float(
        "epsilon",
        16 / 255,
        "Radius of the ball on [-1, 1]; 16/255 is the usual 8/255.",
        1e-6,
        100.0,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "norm", "linf", ["linf", "l2", "l1"], "Of the ball; beside l-inf only with --autoattack.", flag_values=values
    )
    flags.DEFINE_boolean("pgd", True, "PGD of all libraries.", flag_values=values)
    flags.DEFINE_boolean("each", True, "With --autoattack: each of its attacks by itself, too.", flag_values=values)
    flags.DEFINE_integer("examples", 1000, "Test images, class-balanced.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 20, "Steps of PGD.", lower_bound=1, flag_values=values)
    flags.DEFINE_float(
        "relative_step_size", 0.2, "Length of PGD's steps as a share of epsilon.", lower_bound=1e-6, flag_values=values
    )
    flags.DEFINE_boolean(
        "random_start", False, "Whether PGD starts at a random point; each library has its own.", flag_values=values
    )
    flags.DEFINE_boolean(
        "autoattack", False, "Also AutoAttack standard against our worst case; takes long.", flag_values=values
    )
    flags.DEFINE_integer("batch_size", 250, "Images at once.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of the choice of images, random starts and AutoAttack.", flag_values=values)
    flags.DEFINE_string(
        "out", None, "JSON file for all figures; the table goes beside it, with the ending .md.", flag_values=values
    )


if __name__ == "__main__":
    command_line.main(crosscheck, define_flags)
