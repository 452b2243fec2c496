"""Tables that were made by hand of several reports say what the reports say."""

import json
import pathlib
import statistics

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
REPRODUCED = ROOT / "results/reproduce"
# The systems of a table in docs/strongest.md, and how much a seed gains over the recipe on real images.
POOLED = {
    "plain adversarial training with Adam, real images": "recipe_plain",
    "the recipe, real images": "recipe_share_0",
    "the recipe, half of the images generated, a generator of the 2,000 images": "recipe",
    "the recipe, half, a generator of 49,000 images": "recipe_of_more",
    "the recipe, images of that generator alone": "recipe_of_more_share_100",
}
CLEAN, UNDER_ATTACK = 0, 1


def rows(page, first):
    """The cells of a table's rows, from the row that begins with a text to the end of the table."""
    lines = iter((ROOT / page).read_text().splitlines())
    while not (line := next(lines)).startswith(f"| {first}"):
        pass
    table = [line]
    while (line := next(lines)).startswith("|"):
        table.append(line)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def pooled(system, measure):
    """The values of seeds 0 to 2, a list of one by epsilon for each."""
    reports = ("strongest_cifar10_cpu", "strongest_cifar10_cpu_seed_2")
    results = [json.loads((REPRODUCED / f"{report}.json").read_text())["results"] for report in reports]
    return [seed for result in results for seed in result["accuracy"][system][measure]["by_seed"]]


def mean_and_error(values):
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def gain(system, measure="test"):
    both = zip(pooled(system, measure), pooled("recipe_share_0", measure))
    return [ours[UNDER_ATTACK] - theirs[UNDER_ATTACK] for ours, theirs in both]


def test_seeds_of_two_reports_are_pooled():
    table = rows("docs/strongest.md", "CIFAR-10 at 16 px, 2,000 images, seeds 0 to 2")[2:]
    assert [title for title, *_ in table] == list(POOLED)
    for title, *cells in table:
        wanted = (("test", CLEAN), ("test", UNDER_ATTACK), ("train", UNDER_ATTACK), ("gap", UNDER_ATTACK))
        values = [[seed[at] for seed in pooled(POOLED[title], measure)] for measure, at in wanted]
        assert cells == [mean_and_error(of_seeds) for of_seeds in values], title


@pytest.mark.parametrize(
    "system, measure, said",
    [
        ("recipe_of_more", "test", "2.0 ± 0.3"),
        ("recipe_of_more", "gap", "-2.8 ± 1.5"),
        ("recipe_of_more", "train", "-0.8 ± 1.7"),
        ("recipe", "test", "1.3 ± 0.5"),
        ("recipe", "gap", "-0.8 ± 2.7"),
        ("recipe_of_more_share_100", "test", "-0.2 ± 0.2"),
    ],
)
def test_gains_over_real_images_are_paired(system, measure, said):
    assert mean_and_error(gain(system, measure)) == said
    assert said.lstrip("-") in (ROOT / "docs/strongest.md").read_text()


@pytest.mark.parametrize("system, p", [("recipe_of_more", 0.03), ("recipe", 0.11)])
def test_p_values_are_of_a_paired_t_test(system, p):
    """With two degrees of freedom Student's distribution has the closed form 1 - t / sqrt(t^2 + 2), two-sided."""
    values = gain(system)
    t = statistics.mean(values) / (statistics.stdev(values) / len(values) ** 0.5)
    assert 1 - t / (t**2 + 2) ** 0.5 == pytest.approx(p, abs=0.005)


def test_the_claim_at_32_px_is_what_its_evaluations_found():
    """By the configured attacks alone: what the checks break beside is in the reports' curves, too."""
    table = rows("results/README.md", "PGD-20, 2,000 images: adversarial training")
    assert len(table) == 20
    for (title, split, *cells), (_, train, *train_cells) in zip(table[::2], table[1::2]):
        name = title.split("(claim/")[1].split(")")[0]
        report = json.loads((ROOT / "results/claim" / name).read_text())
        assert (split, train) == ("test", "train")
        for curve, written in ((report["curve"], cells), (report["train"]["curve"], train_cells)):
            found = []
            for point in curve:
                own = [attack for attack in point["attacks"] if not attack["label"].startswith("check: ")]
                found.append(f"{100 * (own[-1] if own else point)['accuracy']:.2f}")
            assert written == found, title
