"""Gathers what each improvement of the GAN does to the generator's images and to the classifier's accuracy."""

from __future__ import annotations

from reproduction.gathering import Gathered, Runs, cell, number, robustness, summarize, table
from reproduction.runs import read_json
from reproduction.systems import SYSTEMS

_BASE = "robgan"
_WITHOUT_GENERATOR = "adversarial_training"
_DISTANCE = "frechet_classifier_distance"


def better_gan(runs: Runs) -> Gathered:
    """Frechet distance of the generated images and accuracy of the classifier; differences are paired by seed."""
    names = [name for name in SYSTEMS if runs.of(name) and name != _WITHOUT_GENERATOR and _generators(runs, name)]
    reports = {name: [read_json(run.generation)["extractors"][0] for run in runs.of(name)] for name in names}
    distances = {name: [one["generated"][_DISTANCE] for one in of] for name, of in reports.items()}
    of_real = next(iter(reports.values()))[0]["real_test"][_DISTANCE] if reports else None
    there = [*([_WITHOUT_GENERATOR] if runs.of(_WITHOUT_GENERATOR) else []), *names]
    found = {name: robustness(runs.of(name)) for name in there}
    one = next(iter(found.values()))
    epsilons, at, reference = one.epsilons, one.at, number(one.reference_epsilon)
    summaries = {name: of.to_json() for name, of in found.items()}
    measured = {name: summarize(of) for name, of in distances.items()}
    against = {
        name: {
            "gain": summarize(found[name].test - found[_BASE].test),
            "distance": summarize([a - b for a, b in zip(distances[name], distances[_BASE])])
            if name in distances
            else None,
        }
        for name in found
        if _BASE in found and name != _BASE
    }
    updates = {name: runs.updates(name) for name in found}
    every = range(len(epsilons))
    lines = table(
        [
            "",
            "Frechet distance",
            *(f"test images at {number(epsilon)}, %" for epsilon in epsilons),
            f"gap at {reference}",
            "updates of the classifier",
        ],
        [
            [
                SYSTEMS[name].title,
                cell(measured[name], digits=2) if name in measured else "",
                *(cell(summaries[name]["test"], index) for index in every),
                cell(summaries[name]["gap"], at),
                f"{updates[name]:,}",
            ]
            for name in found
        ],
    )
    lines += table(
        ["against Rob-GAN as it is", "Frechet distance", *(f"points at {number(epsilon)}" for epsilon in epsilons)],
        [
            [
                SYSTEMS[name].title,
                cell(of["distance"], digits=2, sign=True) if of["distance"] else "",
                *(cell(of["gain"], index, sign=True) for index in every),
            ]
            for name, of in against.items()
        ],
    )
    real = "" if of_real is None else f" Real test images are {of_real:.2f} from the training images."
    lines += [
        "The Frechet distance is that of generated images from the training images, in the features of a classifier "
        f"that took no part in the trainings: smaller is better.{real} Differences are paired: of each seed first, "
        "then mean and standard error; one of less than three standard errors may well be chance. The classifier is "
        "that of the best checkpoint by validation under attack, the generator that of the end of co-training.",
        "",
    ]
    results = {
        "epsilons": epsilons,
        "reference_epsilon": one.reference_epsilon,
        "accuracy": summaries,
        "frechet_distance": measured,
        "frechet_distance_of_real_test_images": of_real,
        "against_robgan": against,
        "updates": updates,
    }

    def draw(figure):
        axis = figure.subplots()
        for name in names:
            accuracy, distance = summaries[name]["test"], measured[name]
            errors = {}
            if distance["standard_error"] is not None:
                errors = {"xerr": distance["standard_error"], "yerr": accuracy["standard_error"][at]}
            axis.errorbar(distance["mean"], accuracy["mean"][at], fmt="o", label=SYSTEMS[name].title, **errors)
        if _WITHOUT_GENERATOR in found:
            mean = summaries[_WITHOUT_GENERATOR]["test"]["mean"][at]
            axis.axhline(mean, color="gray", linestyle=":", label=SYSTEMS[_WITHOUT_GENERATOR].title)
        axis.set(xlabel="Frechet distance of the generated images", ylabel=f"accuracy at epsilon {reference}, %")
        axis.legend(fontsize=7)

    return Gathered(results, lines, draw)


def _generators(runs: Runs, name: str) -> bool:
    """Whether the generators of a system are measured."""
    return all(run.part.generator for run in runs.of(name))
