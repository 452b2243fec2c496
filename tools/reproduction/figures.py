"""Gathers what compares curves and pictures: Fig. 2, 7 and 8."""

from __future__ import annotations

import numpy as np

from reproduction import paper
from reproduction.gathering import (
    Gathered,
    Runs,
    band,
    cell,
    curve,
    number,
    of_real_images,
    robustness,
    summarize,
    table,
)
from reproduction.runs import read_json
from reproduction.systems import SYSTEMS

_SPLITS = ("train", "test")
_CURVES = {
    "attacked_accuracy": "accuracy under attack, %",
    "clean_accuracy": "accuracy on clean images, %",
    "lipschitz": "local Lipschitz value",
}


def fig2(runs: Runs) -> Gathered:
    """Accuracy and local Lipschitz value of adversarial training, on training and on test images."""
    system = runs.runs[0].system
    found = robustness(runs.of(system))
    accuracy = found.to_json()
    by_epoch = {}
    for measure in _CURVES:
        factor = 1 if measure == "lipschitz" else 100
        for split in _SPLITS:
            epochs, values = curve(runs, system, "finetuning", f"classifier_{split}_{measure}")
            by_epoch.setdefault(measure, {})[split] = summarize(factor * values)
    results = {
        "system": system,
        "epsilons": found.epsilons,
        "accuracy": accuracy,
        "epochs": epochs.tolist(),
        "by_epoch": by_epoch,
        "paper": paper.IN_WORDS["fig2"],
    }
    rows = [
        [f"{split} images, %", *(cell(accuracy[split], index) for index in range(len(found.epsilons)))]
        for split in _SPLITS
    ]
    last = [
        [title, *(cell(by_epoch[measure][split], index=at, digits=2) for at in (0, -1) for split in _SPLITS)]
        for measure, title in _CURVES.items()
    ]
    lines = [
        paper.IN_WORDS["fig2"],
        "",
        f"Here: {SYSTEMS[system].title}.",
        "",
        *table(["accuracy by epsilon", *map(number, found.epsilons)], rows),
        *table(
            ["local Lipschitz value of the best checkpoint", *_SPLITS],
            [["mean", *(cell(accuracy["lipschitz"][s], digits=3) for s in _SPLITS)]],
        ),
        *table(
            ["by epoch", *(f"{split}, epoch {epochs[at]:.3g}" for at in (0, -1) for split in _SPLITS)],
            last,
        ),
        "The first two tables are of the best checkpoint by validation, in the full evaluation, the last one is of the "
        "weights as they were (their moving average, where there is one), on fewer images, under the shorter attack of "
        "the validation, at the training epsilon.",
        "",
    ]

    def draw(figure):
        first, *others = figure.subplots(1, 3)
        for split in _SPLITS:
            band(first, found.epsilons, accuracy[split], f"{split} images")
            for axis, measure in zip(others, ("attacked_accuracy", "lipschitz")):
                band(axis, epochs, by_epoch[measure][split], f"{split} images")
        first.set(xlabel="epsilon", ylabel="accuracy, %", ylim=(0, 100))
        for axis, measure in zip(others, ("attacked_accuracy", "lipschitz")):
            axis.set(xlabel="epoch", ylabel=_CURVES[measure])
        for axis in (first, *others):
            axis.legend(fontsize=7)

    return Gathered(results, lines, draw)


_LOSSES = {"robgan": "split loss, attack (Rob-GAN)", "ac_gan_attack": "AC-GAN loss, attack"}


def fig7(runs: Runs) -> Gathered:
    """Pictures of both losses, and how varied their images are within a class."""
    measured = {}
    for system in _LOSSES:
        reports = [read_json(run.generation) for run in runs.of(system)]
        found = {
            "diversity": [report["extractors"][0]["generated"]["diversity"] for report in reports],
            "least_diversity": [report["extractors"][0]["generated"]["least_diversity"] for report in reports],
            "ms_ssim": [(report["similarity"] or {}).get("generated") for report in reports],
        }
        measured[system] = {name: summarize(values) for name, values in found.items() if None not in values}
    real = read_json(runs.of("robgan")[0].generation)
    of_real = {
        "diversity": real["extractors"][0]["real_test"]["diversity"],
        "least_diversity": real["extractors"][0]["real_test"]["least_diversity"],
        "ms_ssim": (real["similarity"] or {}).get("real"),
    }
    results = {
        "measures": measured,
        "real": of_real,
        "extractor": real["extractors"][0]["checksum"],
        "paper": paper.IN_WORDS["fig7"],
    }
    names = {
        "diversity": "diversity (1: as real, 0: collapsed)",
        "least_diversity": "that of the least varied class",
        "ms_ssim": "MS-SSIM within a class (1: all the same)",
    }
    rows = [
        [_LOSSES[system], *(cell(found[name], digits=2) if name in found else "" for name in names)]
        for system, found in measured.items()
    ]
    rows.append(["real images", *("" if of_real[name] is None else f"{of_real[name]:.2f}" for name in names)])
    lines = [paper.IN_WORDS["fig7"], "", *table(["", *names.values()], rows)]
    lines += [f"The picture: seed {runs.seeds[0]}, a row for each class, the same noise in both.", ""]
    pictures = {title: runs.of(system)[0].grid for system, title in _LOSSES.items()}

    def draw(figure):
        from matplotlib import pyplot

        for axis, (title, path) in zip(figure.subplots(1, 2), pictures.items()):
            axis.imshow(pyplot.imread(path), cmap="gray", interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.axis("off")

    return Gathered(results, lines, draw)


# Metric, what it is called, and whether more is better; the standard Inception's names where it is the extractor.
_SCORES = (
    ("generator_{}_score", "score", True),
    ("generator_frechet_{}_distance", "Frechet distance", False),
)
_REFERENCE = "sn_gan"


def passing(epochs: np.ndarray, reference: np.ndarray, other: np.ndarray, more_is_better: bool) -> dict:
    """Tells when a system passes the reference's best value.

    Args:
        epochs: where both were measured, [T].
        reference: values of the reference, [T].
        other: values of the system, [T].
        more_is_better: whether the best is the largest.

    Returns:
        `best` of the reference and the epoch where it has it, the first `epoch` where the system is at least as good,
        and `speed_up`, the quotient of both; None where it never is.
    """
    sign = 1 if more_is_better else -1
    at = int(np.argmax(sign * reference))
    there = np.flatnonzero(sign * other >= sign * reference[at])
    epoch = float(epochs[there[0]]) if len(there) else None
    best = {"best": float(reference[at]), "best_epoch": float(epochs[at])}
    return {**best, "epoch": epoch, "speed_up": None if epoch is None else float(epochs[at]) / epoch}


def fig8(runs: Runs) -> Gathered:
    """The generators' scores by epoch, and when each system passes SN-GAN's best."""
    systems = [name for name in SYSTEMS if SYSTEMS[name].scored]
    word = "inception" if _has(runs, "generator_inception_score") else "classifier"
    scores, lines = {}, [paper.IN_WORDS["fig8"], ""]
    for metric, title, more_is_better in _SCORES:
        epochs, values = None, {}
        for system in systems:
            where, values[system] = curve(runs, system, "cotraining", metric.format(word))
            if epochs is not None and not np.array_equal(where, epochs):
                raise ValueError(f"{system} was scored at other epochs than {systems[0]}: they can't be compared.")
            epochs = where
        passed = {
            system: [
                passing(epochs, reference, one, more_is_better)
                for reference, one in zip(values[_REFERENCE], values[system])
            ]
            for system in systems
        }
        best = np.max if more_is_better else np.min
        bests = {system: summarize(best(one, axis=1)) for system, one in values.items()}
        scores[title] = {
            "metric": metric.format(word),
            "epochs": epochs.tolist(),
            "curves": {system: summarize(one) for system, one in values.items()},
            "best": bests,
            "passes_sn_gan": passed,
        }
        rows = [
            [
                SYSTEMS[system].title,
                cell(bests[system], digits=2),
                cell(summarize(values[system][:, -1]), digits=2),
                ", ".join("never" if one["epoch"] is None else f"{one['epoch']:.3g}" for one in passed[system]),
                ", ".join("–" if one["speed_up"] is None else f"{one['speed_up']:.1f}" for one in passed[system]),
            ]
            for system in systems
        ]
        name = f"{word} {title}" if more_is_better else f"Frechet {word} distance"
        head = [name, "best", "at the end", "epoch it is as good as SN-GAN's best, by seed", "times as fast"]
        lines += table(head, rows)
    theirs = paper.FIG8.get(runs.data)
    if theirs:
        slow, fast = theirs["times_faster"]
        lines += [
            f"The paper ({theirs['place']}): within {theirs['epochs']} epochs, {slow} to {fast} times as fast.",
            "",
        ]
    real = of_real_images([run for system in systems for run in runs.of(system)])
    by = "TF-GAN's Inception" if word == "inception" else "a classifier that took no part in any of the trainings"
    lines += [
        f"All by one extractor, {real['extractor'][:12]}: {by}. By it the {real['images']:,} real training images have "
        f"a score of {real['score']:.2f}: what is above that is easier to tell than real images, not better.",
        "",
    ]

    def draw(figure):
        for axis, (title, found) in zip(figure.subplots(1, 2), scores.items()):
            for system in systems:
                dashes = {"linestyle": "--", "color": "black"} if system == _REFERENCE else {}
                band(axis, found["epochs"], found["curves"][system], SYSTEMS[system].title, **dashes)
            if title == "score":
                axis.axhline(real["score"], color="gray", linewidth=0.8, linestyle=":", label="real images")
            axis.set(xlabel="epoch", ylabel=f"{word}: {title}")
            axis.legend(fontsize=7)

    return Gathered({"scores": scores, "real": real, "paper": theirs or paper.IN_WORDS["fig8"]}, lines, draw)


def _has(runs: Runs, metric: str) -> bool:
    return any(metric in record for record in runs.of(_REFERENCE)[0].directory.metric_records())
