"""Gathers what the parts of the recipe of gin/strongest/ are worth, and generated images beside them."""

from __future__ import annotations

from reproduction.gathering import Gathered, Runs, band, cell, number, robustness, summarize, table
from reproduction.systems import SYSTEMS

# Everything is compared with it.
_WHOLE = "recipe"
# Share of generated images, in rising order; with none they are all real.
_SHARES = {
    "recipe_share_0": 0.0,
    "recipe_share_25": 0.25,
    "recipe": 0.5,
    "recipe_share_75": 0.75,
    "recipe_share_100": 1.0,
}
_CHOICE = (
    "All are measured at the best checkpoint by validation under attack, which took no test image; all have the same "
    "network, batch size and attack in training. "
)


def strongest(runs: Runs) -> Gathered:
    """Accuracy of the recipe, of each variant of it, and by share of generated images; differences paired by seed."""
    names = [name for name, system in SYSTEMS.items() if system.recipe]
    found = {name: robustness(runs.of(name)) for name in names}
    summaries = {name: one.to_json() for name, one in found.items()}
    differences = {name: summarize(found[name].test - found[_WHOLE].test) for name in names if name != _WHOLE}
    # Of generated images: against the recipe without any.
    gains = {
        name: summarize(found[name].test - found["recipe_share_0"].test) for name in _SHARES if name != "recipe_share_0"
    }
    epsilons, at = found[_WHOLE].epsilons, found[_WHOLE].at
    reference = found[_WHOLE].reference_epsilon
    updates = {name: runs.updates(name, ("finetuning",)) for name in names}
    operations = {name: _operations(runs, name) for name in names}
    results = {
        "epsilons": epsilons,
        "reference_epsilon": reference,
        "accuracy": summaries,
        "difference_from_recipe": differences,
        "gain_of_generated_images": gains,
        "updates": updates,
        "operations_of_an_update": operations,
    }
    every = range(len(epsilons))

    def row(name, summary, sign=False):
        return [SYSTEMS[name].title, *(cell(summary, index, sign=sign) for index in every)]

    head = ["accuracy on test images, %", *map(number, epsilons), f"training at {number(reference)}", "gap"]
    lines = table(
        head,
        [[*row(name, one["test"]), cell(one["train"], at), cell(one["gap"], at)] for name, one in summaries.items()],
    )
    lines += table(
        ["difference from the recipe, points", *map(number, epsilons)],
        [row(name, one, sign=True) for name, one in differences.items()],
    )
    lines += table(
        ["gain of generated images over none, points", *map(number, epsilons)],
        [row(name, one, sign=True) for name, one in gains.items()],
    )
    lines += [
        f"Differences are paired: those of each seed first, then mean and standard error. {_CHOICE}{_equal(updates)}",
        "",
    ]

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for name in ("recipe_plain", "recipe_share_0", _WHOLE, "recipe_share_100"):
            band(left, epsilons, summaries[name]["test"], SYSTEMS[name].title)
        left.set(xlabel="epsilon", ylabel="accuracy on test images, %", ylim=(0, 100))
        for kind in ("test", "train"):
            chosen = summarize(found_at(kind, at))
            band(right, list(_SHARES.values()), chosen, {"test": "test images", "train": "training images"}[kind])
        right.set(xlabel="share of generated images", ylabel=f"accuracy at epsilon {number(reference)}, %")
        for axis in (left, right):
            axis.legend(fontsize=7)

    def found_at(kind, place):
        values = [getattr(found[name], kind)[:, place] for name in _SHARES]
        return [list(of_seed) for of_seed in zip(*values)]

    return Gathered(results, lines, draw)


def _operations(runs: Runs, name: str) -> float | None:
    """Operations of an update, as the dry run counts them; None where they were not counted."""
    (stage,) = runs.expected[runs.of(name)[0].name]["stages"]
    return stage["flops"] and stage["flops"] / stage["steps"]


def _equal(updates: dict[str, int]) -> str:
    counts = sorted(set(updates.values()))
    if len(counts) == 1:
        return f"Updates of the classifier: {counts[0]:,} of each."
    return "Updates of the classifier are NOT EQUAL: " + ", ".join(f"{n} {c:,}" for n, c in updates.items()) + "."
