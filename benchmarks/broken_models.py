"""Evaluates broken and honest classifiers, to see what the checks of the evaluation find.

    python benchmarks/broken_models.py --out=broken_models.json
    python benchmarks/broken_models.py --only='early exit,linear'

Each broken classifier has a true accuracy under attack: the worst case over adaptive attacks, which know what is hidden
and follow the gradients of the network behind it; for one that knows the test images, that on other images. A broken
one should fail two checks or more, an honest one none. See docs/evaluation.md.
"""

from __future__ import annotations

import json
import pathlib
import time

from absl import flags

from robgan_tf import command_line  # isort: skip  (before TensorFlow, whose log it quiets)

import numpy as np
from broken import honest, models
from broken.networks import EPSILON, digits, plain

from robgan_tf.players.attacker.apgd import AutoPGD
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.losses import margin_loss, targeted_margin_loss
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import LInf
from robgan_tf.players.attacker.transfer import Transfer
from robgan_tf.robustness.checks import SanityChecks
from robgan_tf.robustness.evaluation import RobustnessEvaluation
from robgan_tf.run.provenance import provenance

FLAGS = flags.FLAGS
BALL = LInf(EPSILON)
# Beside these, checks that look at the same thing in the same way count as one.
ALIKE = (
    {
        "Two clean passes are identical",
        "Two passes between the 8-bit levels are identical",
        "Two passes within the ball are identical",
    },
    {"Gradients are not zero", "Gradients agree with finite differences", "Steps along gradients beat random ones"},
    {
        "Attacks from the image reach as far as from afar",
        "Unbounded attack reaches 0 %",
        "Accuracy never rises with epsilon",
    },
    {"Other losses find little more", "More steps and restarts find little more", "Larger balls find nothing more"},
)


def evaluate(logits, examples: int) -> dict:
    """Evaluates a classifier by PGD-20 and the checks; returns what the table needs."""
    start = time.monotonic()
    evaluation = RobustnessEvaluation(
        [PGD(BALL, 20, relative_step_size=0.2, random_start=True)],
        (0.0,),
        checks=SanityChecks(examples),
        test_examples=examples,
    )
    report = evaluation(logits, digits()).report
    attacks = report["worst_case"]["attacks"]
    by_pgd = [attack["accuracy"] for attack in attacks if not attack["label"].startswith("check:")]
    return {
        "clean": report["clean"],
        "pgd": by_pgd[-1] if by_pgd else report["clean"],
        "reported": report["worst_case"]["accuracy"],
        "failed": [check["name"] for check in report["checks"] if check["status"] == "fail"],
        "warned": [check["name"] for check in report["checks"] if check["status"] == "warn"],
        "seconds": round(time.monotonic() - start, 1),
        "checks": report["checks"],
    }


def true_accuracy(logits, source, examples: int) -> float:
    """Returns accuracy under adaptive attacks; where there is no `source`, on images that are not of the test."""
    data = digits()
    images = data.test.take(examples, 0) if source else data.train.select(np.arange(600, 600 + examples))
    follow = (source or plain)()
    standing = AttackedClassifier(logits, None, 250)(images)
    for attack in (
        AutoPGD(BALL, 50, targeted_margin_loss, targets=9),
        PGD(BALL, 40, relative_step_size=0.1, loss=margin_loss, restarts=3, random_start=True),
    ):
        for _ in AttackedClassifier(logits, Transfer(attack, follow), 250).attack_all(images, standing):
            pass
    return float(standing.mean())


def independent(failed) -> int:
    """Returns how many of the checks that failed look at something of their own."""
    alike = {name: number for number, names in enumerate(ALIKE) for name in names}
    return len({alike.get(name, name) for name in failed})


def table(rows: list[dict]) -> str:
    """Returns the results in Markdown."""
    lines = [
        "| classifier | clean | PGD-20 | reported | true | verdict | failed checks (independent of each other) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        true = f"{100 * row['true']:.0f}" if "true" in row else ""
        figures = " | ".join(f"{100 * row[name]:.0f}" for name in ("clean", "pgd", "reported"))
        count = f"{len(row['failed'])} ({row['independent']})" + (
            ": " + ", ".join(row["failed"]) if row["failed"] else ""
        )
        verdict = "unreliable" if row["failed"] else "passes"
        lines.append(f"| {row['name']} | {figures} | {true} | {verdict} | {count} |")
    return "\n".join(lines)


def as_text(head: dict, rows: list[dict]) -> str:
    """Returns the results as JSON, a line for each check, without what follows from its numbers of images."""

    def line(check):
        kept = {name: value for name, value in check.items() if name not in ("value", "interval")}
        return json.dumps({**kept, "detectable": check["detectable"] and round(check["detectable"], 4)})

    def entry(row):
        checks = ",\n".join(map(line, row["checks"]))
        return json.dumps({**row, "checks": []})[:-2] + f"\n{checks}]}}"

    return json.dumps({**head, "rows": []})[:-2] + "\n" + ",\n".join(map(entry, rows)) + "]}\n"


def main():
    """Does what the flags say."""
    only = [name.strip() for name in FLAGS.only.split(",")] if FLAGS.only else None
    unknown = set(only or ()) - {*models.MODELS, *honest.MODELS}
    if unknown:
        command_line.fail(f"--only: no such classifier: {', '.join(sorted(unknown))}")
    out = pathlib.Path(FLAGS.out) if FLAGS.out else None
    head = {"epsilon": EPSILON, "examples": FLAGS.examples, **provenance()}
    found = json.loads(out.read_text()) if out and out.exists() else {**head, "rows": []}
    rows = found.pop("rows")
    if found != head:
        command_line.fail(f"--out={out} was made by other code or settings, which would not go together: remove it")
    done = {row["name"] for row in rows}
    for kind, makers in (("broken", models.MODELS), ("honest", honest.MODELS)):
        for name, maker in makers.items():
            if name in done or (only and name not in only):
                continue
            logits = (maker.make if kind == "broken" else maker)()
            row = {"name": name, "kind": kind, **evaluate(logits, FLAGS.examples)}
            if kind == "broken":
                row.update(why=maker.why, known=maker.known, true=true_accuracy(logits, maker.source, FLAGS.examples))
            row["independent"] = independent(row["failed"])
            row["checks"] = row.pop("checks")  # last
            rows.append(row)
            print(table([row]).splitlines()[-1], f"{row['seconds']} s; warned: {row['warned']}", flush=True)
            if out:
                out.write_text(as_text(head, rows))
    print(table(rows))


def define_flags(values: flags.FlagValues):
    """Defines the flags of this script."""
    flags.DEFINE_integer("examples", 200, "Test images.", lower_bound=20, flag_values=values)
    flags.DEFINE_string("only", None, "Names of classifiers, with commas between them.", flag_values=values)
    flags.DEFINE_string("out", None, "File for the results; those in it are not made again.", flag_values=values)


if __name__ == "__main__":
    command_line.main(main, define_flags)
