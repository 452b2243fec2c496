"""Gathers what the parts of the recipe of gin/strongest/ are worth, and generated images beside them."""

from __future__ import annotations

from reproduction.gathering import Gathered, Runs, band, cell, number, robustness, summarize, table
from reproduction.systems import SYSTEMS

_TITLES = {name: system.title for name, system in SYSTEMS.items()}
# Share of generated images, in rising order, of systems in which nothing else differs.
_SHARES = {
    "recipe_share_0": 0.0,
    "recipe_share_25": 0.25,
    "recipe": 0.5,
    "recipe_share_75": 0.75,
    "recipe_share_100": 1.0,
}
# What is worth how much: the system that has it, and the one that has everything else.
_WORTH = {
    "the recipe with generated images": ("recipe", "recipe_plain"),
    "the recipe without generated images": ("recipe_share_0", "recipe_plain"),
    **{f"generated images, {share:.0%}": (name, "recipe_share_0") for name, share in _SHARES.items() if share},
    "generated images, 50%, by a generator that saw more": ("recipe_of_more", "recipe_share_0"),
    "generated images, 100%, by a generator that saw more": ("recipe_of_more_share_100", "recipe_share_0"),
    "SGD over Adam, plain training": ("recipe_plain_with_sgd", "recipe_plain"),
    "SGD over Adam, the recipe on real images": ("recipe_share_0", "recipe_share_0_with_adam"),
    "TRADES": ("recipe", "recipe_without_trades"),
    "average of the weights": ("recipe", "recipe_without_average"),
    "label smoothing": ("recipe", "recipe_without_smoothing"),
    "one cycle": ("recipe", "recipe_without_one_cycle"),
    "adversarial weight perturbation": ("recipe_with_awp", "recipe"),
    "CutMix": ("recipe_with_cutmix", "recipe"),
}


def strongest(runs: Runs) -> Gathered:
    """Accuracy of the recipe and of its variants, and what each part is worth: differences paired by seed."""
    found = {name: robustness(runs.of(name)) for name, system in SYSTEMS.items() if system.recipe and runs.of(name)}
    shares = {name: share for name, share in _SHARES.items() if name in found}
    there = [name for name, system in SYSTEMS.items() if system.recipe and (not system.of_more or name in found)]
    missing = [_TITLES[name] for name in there if name not in found]
    one = next(iter(found.values()))
    epsilons, at, reference = one.epsilons, one.at, number(one.reference_epsilon)
    summaries = {name: of.to_json() for name, of in found.items()}
    operations = {name: _operations(runs, name) for name in found}
    updates = {name: runs.updates(name) for name in found}
    worth = {
        part: {
            "with": has,
            "without": others,
            "gain": summarize(found[has].test - found[others].test),
            "less_gap": summarize(found[others].gap - found[has].gap),
            "operations": operations[others] and operations[has] / operations[others] - 1,
        }
        for part, (has, others) in _WORTH.items()
        if has in found and others in found
    }
    results = {
        "epsilons": epsilons,
        "reference_epsilon": one.reference_epsilon,
        "accuracy": summaries,
        "worth": worth,
        "updates": updates,
        "operations_of_an_update": operations,
    }
    every = range(len(epsilons))
    lines = table(
        ["accuracy on test images, %", *map(number, epsilons), f"training images at {reference}", "gap"],
        [
            [_TITLES[name], *(cell(of["test"], index) for index in every), cell(of["train"], at), cell(of["gap"], at)]
            for name, of in summaries.items()
        ],
    )
    lines += table(
        [
            "worth, points",
            *map(number, epsilons),
            f"gap at {reference} smaller by",
            "arithmetic of an update",
            "between",
        ],
        [
            [
                part,
                *(cell(of["gain"], index, sign=True) for index in every),
                cell(of["less_gap"], at, sign=True),
                "" if of["operations"] is None else f"{of['operations']:+.0%}",
                f"{_TITLES[of['with']]} − {_TITLES[of['without']]}",
            ]
            for part, of in worth.items()
        ],
    )
    lines += [
        "Worth is paired: the difference of each seed first, then mean and standard error; one of less than three "
        "standard errors may well be chance. All have the same network, batch size and steps of the attack in "
        "training, and are measured at the best checkpoint by validation under attack: no choice saw a test image. "
        "The generator of a seed is trained on the same training images"
        + (", but where it is said to have seen more" if any(SYSTEMS[name].of_more for name in found) else "")
        + f". {_updates(updates)}"
        + (f" Not among the systems here: {'; '.join(missing)}." if missing else ""),
        "",
    ]

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for split, label in (("test", "test images"), ("train", "training images")):
            by_seed = list(zip(*(getattr(found[name], split)[:, at] for name in shares)))
            if shares:
                band(left, list(shares.values()), summarize(by_seed), label)
        left.set(xlabel="share of generated images", ylabel=f"accuracy at epsilon {reference}, %")
        left.legend(fontsize=7)
        places = range(len(worth))[::-1]
        gains = [of["gain"] for of in worth.values()]
        errors = [gain["standard_error"][at] if gain["standard_error"] else 0 for gain in gains]
        right.barh(places, [gain["mean"][at] for gain in gains], xerr=errors)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_yticks(places, list(worth), fontsize=7)
        right.set(xlabel=f"worth at epsilon {reference}, points")

    return Gathered(results, lines, draw)


def _operations(runs: Runs, system: str) -> float | None:
    """Operations of an update, as the dry run counts them; None where they were not counted."""
    (stage,) = runs.expected[runs.of(system)[0].name]["stages"]
    return stage["flops"] and stage["flops"] / stage["steps"]


def _updates(updates: dict[str, int]) -> str:
    counts = set(updates.values())
    if len(counts) == 1:
        return f"Updates of the classifier: {counts.pop():,} of each."
    return f"Updates of the classifier, NOT EQUAL: {', '.join(f'{name} {count:,}' for name, count in updates.items())}."
