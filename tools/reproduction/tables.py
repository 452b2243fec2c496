"""Gathers what compares classifiers by their accuracy: Table 1, Fig. 6, section 1."""

from __future__ import annotations

from collections.abc import Sequence

from reproduction import paper
from reproduction.gathering import Gathered, Robustness, Runs, band, cell, number, robustness, summarize, table
from reproduction.systems import SYSTEMS

_BEFORE = "robgan_before_finetuning"
_CHOICE = (
    "Adversarial training and fine-tuning are measured at the best checkpoint by validation under attack, co-training "
    "at its last one."
)
_TITLES = {
    **{name: system.title for name, system in SYSTEMS.items()},
    _BEFORE: "Rob-GAN without fine-tuning",
}


def _three(runs: Runs) -> tuple[dict[str, Robustness], dict[str, int]]:
    """Accuracies and updates of adversarial training and of Rob-GAN before and after fine-tuning."""
    found = {
        "adversarial_training": robustness(runs.of("adversarial_training")),
        _BEFORE: robustness(runs.of("robgan"), before_finetuning=True),
        "robgan": robustness(runs.of("robgan")),
    }
    updates = {
        "adversarial_training": runs.updates("adversarial_training"),
        _BEFORE: runs.updates("robgan", ("cotraining",)),
        "robgan": runs.updates("robgan"),
    }
    return found, updates


def _rows(found: dict[str, Robustness], summaries: dict[str, dict], kind: str) -> list[list[str]]:
    return [
        [_TITLES[name], *(cell(summaries[name][kind], index) for index in range(len(one.epsilons)))]
        for name, one in found.items()
    ]


def _updates(updates: dict[str, int]) -> str:
    ours, theirs = updates["robgan"], updates["adversarial_training"]
    counts = f"Rob-GAN {ours:,} ({updates[_BEFORE]:,} of them in co-training), adversarial training {theirs:,}"
    apart = abs(ours - theirs) / max(ours, theirs)
    # Lengths are rounded to whole steps of several updates.
    equal = "equal, but for the rounding to whole steps" if apart <= 0.01 else f"NOT EQUAL: they differ by {apart:.1%}"
    return f"Updates of the classifier: {counts}; {equal}. {_CHOICE}"


def table1(runs: Runs) -> Gathered:
    """Accuracy by epsilon, and the margin of Rob-GAN over adversarial training, paired by seed."""
    found, updates = _three(runs)
    epsilons = found["robgan"].epsilons
    summaries = {name: one.to_json() for name, one in found.items()}
    margin = summarize(found["robgan"].test - found["adversarial_training"].test)
    at, reference_epsilon = found["robgan"].at, found["robgan"].reference_epsilon
    results = {
        "epsilons": epsilons,
        "reference_epsilon": reference_epsilon,
        "accuracy": summaries,
        "margin": margin,
        "updates": updates,
        "paper": paper.TABLE1.get(runs.data),
    }
    head = ["accuracy on test images, %", *map(number, epsilons)]
    rows = _rows(found, summaries, "test")
    rows.append(
        ["margin of Rob-GAN with fine-tuning", *(cell(margin, index, sign=True) for index in range(len(epsilons)))]
    )
    lines = [*table(head, [*rows, *_paper_rows(runs.data, epsilons)])]
    lines += [
        f"The margin is paired: the difference of each seed first, then mean and standard error. {_updates(updates)}",
        "",
        *table(
            [f"at epsilon {number(reference_epsilon)}, %", "test", "training", "gap"],
            [
                [_TITLES[name], *(cell(summary[kind], at) for kind in ("test", "train", "gap"))]
                for name, summary in summaries.items()
            ],
        ),
    ]

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for name, summary in summaries.items():
            line = band(left, epsilons, summary["test"], _TITLES[name])
            theirs = (paper.TABLE1.get(runs.data) or {}).get(name)
            if theirs:
                of_paper = paper.TABLE1[runs.data]["epsilons"]
                left.plot(of_paper, theirs, ":", color=line.get_color(), label=f"{_TITLES[name]} (paper)")
        left.set(xlabel="epsilon", ylabel="accuracy on test images, %", ylim=(0, 100))
        left.legend(fontsize=7)
        band(right, epsilons, margin, "Rob-GAN with fine-tuning − adversarial training")
        right.axhline(0, color="black", linewidth=0.8)
        theirs = paper.TABLE1.get(runs.data)
        if theirs:
            differences = [ours - base for ours, base in zip(theirs["robgan"], theirs["adversarial_training"])]
            right.plot(theirs["epsilons"], differences, ":", color="black", label="paper")
        right.set(xlabel="epsilon", ylabel="margin, points")
        right.legend(fontsize=7)

    return Gathered(results, lines, draw)


def _paper_rows(data: str, epsilons: Sequence[float]) -> list[list[str]]:
    """The paper's rows, where its epsilons are among ours."""
    theirs = paper.TABLE1.get(data)
    if theirs is None:
        return []
    places = dict(zip(theirs["epsilons"], range(len(theirs["epsilons"]))))

    def row(title, values, form):
        return [title, *(format(values[places[e]], form) if e in places else "" for e in epsilons)]

    base, ours = theirs["adversarial_training"], theirs["robgan"]
    return [
        row(f"paper ({theirs['place']}): adversarial training", base, ".2f"),
        row("paper: Rob-GAN with fine-tuning", ours, ".2f"),
        row("paper: margin", [b - a for a, b in zip(base, ours)], "+.2f"),
    ]


def fig6(runs: Runs) -> Gathered:
    """The effect of fine-tuning, and the gap between training and test images."""
    found, updates = _three(runs)
    epsilons = found["robgan"].epsilons
    summaries = {name: one.to_json() for name, one in found.items()}
    effect = summarize(found["robgan"].test - found[_BEFORE].test)
    narrower = summarize(found["adversarial_training"].gap - found["robgan"].gap)
    results = {
        "epsilons": epsilons,
        "accuracy": summaries,
        "effect_of_finetuning": effect,
        "gap_adversarial_training_minus_robgan": narrower,
        "updates": updates,
        "paper": paper.IN_WORDS["fig6"],
    }
    every = range(len(epsilons))
    test = [["effect of fine-tuning", *(cell(effect, index, sign=True) for index in every)]]
    gaps = [["adversarial training minus Rob-GAN", *(cell(narrower, index, sign=True) for index in every)]]
    lines = [
        paper.IN_WORDS["fig6"],
        "",
        *table(["accuracy on test images, %", *map(number, epsilons)], _rows(found, summaries, "test") + test),
        *table(["training minus test, points", *map(number, epsilons)], _rows(found, summaries, "gap") + gaps),
        "The gap without generated images is that of adversarial training, with them that of Rob-GAN. The two start "
        "from other weights: adversarial training from random ones, fine-tuning from the end of co-training. "
        f"{_updates(updates)}",
        "",
    ]

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for name, summary in summaries.items():
            band(left, epsilons, summary["test"], _TITLES[name])
            band(right, epsilons, summary["gap"], _TITLES[name])
        left.set(xlabel="epsilon", ylabel="accuracy on test images, %", ylim=(0, 100))
        right.set(xlabel="epsilon", ylabel="training − test, points")
        for axis in (left, right):
            axis.legend(fontsize=7)

    return Gathered(results, lines, draw)


def section1(runs: Runs) -> Gathered:
    """PreActResNet-18 without and with generated images."""
    names = ("adversarial_training_preact_resnet18", "generated_preact_resnet18")
    found = {name: robustness(runs.of(name)) for name in names}
    base, ours = found.values()
    summaries = {name: one.to_json() for name, one in found.items()}
    margin = summarize(ours.test - base.test)
    theirs = paper.SECTION1.get(runs.data)
    updates = {name: runs.updates(name, ("finetuning",)) for name in names}
    results = {
        "epsilons": ours.epsilons,
        "reference_epsilon": ours.reference_epsilon,
        "accuracy": summaries,
        "margin": margin,
        "updates": updates,
        "paper": theirs,
    }
    rows = _rows(found, summaries, "test")
    rows.append(["margin", *(cell(margin, index, sign=True) for index in range(len(ours.epsilons)))])
    lines = table(["accuracy on test images, %", *map(number, ours.epsilons)], rows)
    if theirs:
        before, after = (theirs[name] for name in names)
        lines += [
            f"The paper ({theirs['place']}): {before} -> {after} % under attack; it does not say at which epsilon.",
            "",
        ]
    counts = ", ".join(f"{_TITLES[name]} {count:,}" for name, count in updates.items())
    lines += [f"Updates of the classifier: {counts}.", ""]

    def draw(figure):
        axis = figure.subplots()
        for name, summary in summaries.items():
            band(axis, ours.epsilons, summary["test"], _TITLES[name])
            if theirs:
                axis.axhline(theirs[name], linestyle=":", linewidth=0.8, color="black")
        axis.set(xlabel="epsilon", ylabel="accuracy on test images, %", ylim=(0, 100))
        axis.legend(fontsize=7)

    return Gathered(results, lines, draw)
