"""What the reproduction gathers from runs made by hand."""

import json
import math
import pathlib

import numpy as np
import pytest
from reproduction import better_gan, figures, paper, recipe, report, tables
from reproduction.comparable import NotComparableError, check, differences
from reproduction.expected import with_seed
from reproduction.experiments import comparison
from reproduction.gathering import Runs, of_real_images, summarize
from reproduction.planning import plan
from reproduction.runs import runs_of
from reproduction.scales import find
from reproduction.systems import EXTRACTOR, SAMPLED
from reproductions import described

from robgan_tf.bindings import bindings

EPSILONS = [0.0, 0.1, 0.2]

STAGES = {
    "robgan": [("cotraining", 10, 3), ("finetuning", 20, 1)],
    "adversarial_training": [("finetuning", 50, 1)],
}


def accuracies(test, train):
    def block(values):
        curve = [{"epsilon": epsilon, "accuracy": value / 100} for epsilon, value in zip(EPSILONS, values)]
        return {"curve": curve, "examples": 40, "lipschitz": {"mean": values[0] / 1000}}

    attack = {"label": "PGD-20 on class_loss", "norm": "linf", "relative_step_size": 0.2, "random_start": True}
    settings = {"dataset": "digits", "reference_epsilon": 0.1, "seed": 0, "attacks": [attack], "git_commit": "def"}
    checks = [{"name": "More steps find little more", "status": "pass", "message": "0 points"}]
    return {**block(test), "train": block(train), "checks": checks, **settings}


def write_run(run, stages):
    """A finished run without reports; returns what it is expected to be."""
    answer = {
        "config": f"Experiment.seed = {run.seed}\nLInf.epsilon = 0.1\nUpkeep.log_every = 50\n",
        "data": "data: digits, 10 classes",
        "train_images": 100,
        "rate": None,
        "stages": [
            {"stage": name, "steps": steps, "images_per_step": 10, "updates": steps * updates, "flops": None}
            for name, steps, updates in stages
        ],
    }
    run.path.mkdir(parents=True)
    run.directory.config.write_text(answer["config"])
    run.directory.manifest.write_text(json.dumps({"run": [answer["data"]], "git_commit": "abc"}))
    run.directory.metrics.write_text("")
    for name, steps, _ in stages:
        (run.directory.checkpoints(name) / f"{steps:08d}").mkdir(parents=True)
    (run.directory.exports / "1").mkdir(parents=True)
    return answer


TEST = {("adversarial_training", 0): [90, 60, 30], ("adversarial_training", 1): [80, 50, 20]}
TEST.update({("robgan", 0): [90, 64, 40], ("robgan", 1): [82, 58, 24]})


@pytest.fixture
def finished(tmp_path):
    """Two systems with two seeds each, and their accuracies of `TEST`; on training images 10 more."""
    runs = described("table1", "digits", "smoke", tmp_path, seeds=(0, 1))
    answers = {run.name: write_run(run, STAGES[run.system]) for run in runs}
    for run in runs:
        test = TEST[run.system, run.seed]
        found = accuracies(test, [value + 10 for value in test])
        run.directory.robustness.write_text(json.dumps(found))
        if run.part.before_finetuning:
            run.before_finetuning.write_text(json.dumps(accuracies([50, 40, 10], [50, 40, 10])))
    return Runs(runs, answers, "cifar10")


def test_table1_is_mean_standard_error_and_paired_margin(finished):
    """At epsilon .2: 30 and 20, 40 and 24, so margins of 10 and 4: mean 7, standard error (6 / sqrt 2) / sqrt 2 = 3."""
    check(finished.runs, finished.expected)
    found = tables.table1(finished)
    accuracy = found.results["accuracy"]
    assert accuracy["adversarial_training"]["test"]["mean"] == pytest.approx([85, 55, 25])
    assert accuracy["adversarial_training"]["test"]["standard_error"] == pytest.approx([5, 5, 5])
    assert accuracy["robgan"]["test"]["mean"] == pytest.approx([86, 61, 32])
    assert accuracy["robgan"]["test"]["standard_error"] == pytest.approx([4, 3, 8])
    assert accuracy["robgan_before_finetuning"]["gap"]["mean"] == pytest.approx([0, 0, 0])
    assert accuracy["robgan"]["gap"]["mean"] == pytest.approx([10, 10, 10])
    margin = found.results["margin"]
    np.testing.assert_allclose(margin["by_seed"], [[0, 4, 10], [2, 8, 4]], atol=1e-9)
    assert margin["mean"] == pytest.approx([1, 6, 7]) and margin["standard_error"] == pytest.approx([1, 2, 3])
    assert found.results["reference_epsilon"] == 0.1
    assert found.results["updates"] == {"adversarial_training": 50, "robgan_before_finetuning": 30, "robgan": 50}
    text = "\n".join(found.lines)
    assert "+7.0 ± 3.0" in text and "equal, but for the rounding" in text
    assert "| 30.25 |" not in text  # the paper's .08 is not among the epsilons here


def test_a_different_number_of_updates_is_said(finished):
    for name, answer in finished.expected.items():
        if name.startswith("adversarial"):
            answer["stages"][0]["updates"] = 100
    assert "NOT EQUAL: they differ by 50.0%" in "\n".join(tables.table1(finished).lines)


def test_fig6_is_the_effect_of_fine_tuning_and_the_gap(finished):
    found = tables.fig6(finished)
    np.testing.assert_allclose(found.results["effect_of_finetuning"]["by_seed"], [[40, 24, 30], [32, 18, 14]])
    assert found.results["gap_adversarial_training_minus_robgan"]["mean"] == pytest.approx([0, 0, 0])


# At epsilon 0 and .1, by seed; on training images 10 more, but for plain adversarial training 20.
RECIPES = {
    "recipe": ([90, 60], [92, 64]),
    "recipe_share_0": ([90, 50], [90, 50]),
    "recipe_plain": ([80, 40], [90, 50]),
    "recipe_without_trades": ([92, 61], [94, 61]),
}


@pytest.fixture
def recipes(tmp_path):
    """The systems of `strongest` with two seeds each; those that `RECIPES` does not name have 50 % everywhere."""
    runs = [run for run in described("strongest", "digits", "smoke", tmp_path, seeds=(0, 1)) if not run.part.samples]
    answers = {run.name: write_run(run, [("finetuning", 20, 1)]) for run in runs}
    for run in runs:
        answers[run.name]["stages"][0]["flops"] = 400 if run.system == "recipe_without_trades" else 500
        test = RECIPES.get(run.system, ([50, 50], [50, 50]))[run.seed]
        more = 20 if run.system == "recipe_plain" else 10
        run.directory.robustness.write_text(json.dumps(accuracies(test, [value + more for value in test])))
    return Runs(runs, answers, "digits")


def test_what_a_part_is_worth_is_the_paired_difference_with_and_without_it(recipes):
    """TRADES: -2 and -2, -1 and 3: means -2 and 1, standard errors 0 and (4 / sqrt 2) / sqrt 2 = 2."""
    found = recipe.strongest(recipes)
    trades = found.results["worth"]["TRADES"]
    assert trades["gain"]["mean"] == pytest.approx([-2, 1]) and trades["gain"]["standard_error"] == pytest.approx(
        [0, 2]
    )
    assert trades["operations"] == pytest.approx(0.25)
    half = found.results["worth"]["generated images, 50%"]["gain"]
    np.testing.assert_allclose(half["by_seed"], [[0, 10], [2, 14]], atol=1e-9)
    whole = found.results["worth"]["the recipe with generated images"]
    assert whole["gain"]["mean"] == pytest.approx([6, 17]) and whole["gain"]["standard_error"] == pytest.approx([4, 3])
    assert whole["less_gap"]["mean"] == pytest.approx([10, 10]) and whole["operations"] == 0
    text = "\n".join(found.lines)
    assert "| TRADES | -2.0 ± 0.0 | +1.0 ± 2.0 | +0.0 ± 0.0 | +25% |" in text and "classifier: 20 of each." in text


def test_some_systems_alone_can_be_compared_where_each_stands_for_itself(recipes):
    some = comparison("strongest", "digits", "smoke").of(["recipe", "recipe_share_0"])
    assert [part.system for part in some.parts] == [SAMPLED, "recipe", "recipe_share_0"]
    kept = [run for run in recipes.runs if run.part in some.parts]
    found = recipe.strongest(Runs(kept, recipes.expected, "digits"))
    assert list(found.results["worth"]) == ["generated images, 50%"]
    assert found.results["worth"]["generated images, 50%"]["gain"]["mean"] == pytest.approx([1, 12])
    assert "Not among the systems here: plain adversarial training, Adam" in found.lines[-2]
    with pytest.raises(ValueError, match="--systems must be among recipe, .*; got nothing"):
        comparison("strongest", "digits", "smoke").of(["recipe", "nothing"])
    with pytest.raises(ValueError, match="needs all of its systems: Table 1"):
        comparison("table1", "digits", "smoke").of(["robgan"])


def test_recipes_with_other_numbers_of_updates_are_said_to_be_unequal(recipes):
    recipes.expected["recipe_plain, seed 0"]["stages"][0]["updates"] = 21
    assert "NOT EQUAL: recipe 20, recipe_share_0 20, recipe_plain 21," in "\n".join(recipe.strongest(recipes).lines)


# By seed: the Frechet distance and the accuracy at epsilon 0, .1 and .2.
GANS = {
    "robgan": [(4.0, [90, 60, 30]), (6.0, [80, 50, 20])],
    "robgan_top_k": [(3.0, [90, 60, 34]), (3.0, [84, 50, 20])],
}


@pytest.fixture
def gans(tmp_path):
    """Rob-GAN, adversarial training and top-k with two seeds each."""
    compared = comparison("better_gan", "digits", "smoke").of(["robgan", "adversarial_training", "robgan_top_k"])
    runs = runs_of(compared, find("better_gan", "smoke", "digits"), (0, 1), tmp_path)
    runs = [run for run in runs if run.system != EXTRACTOR]
    answers = {
        run.name: write_run(run, STAGES.get(run.system, [("cotraining", 5, 3), ("finetuning", 20, 1)])) for run in runs
    }
    for run in runs:
        test = TEST[run.system, run.seed] if run.system not in GANS else GANS[run.system][run.seed][1]
        run.directory.robustness.write_text(json.dumps(accuracies(test, [value + 10 for value in test])))
        if run.part.generator:
            distance = {"frechet_classifier_distance": GANS[run.system][run.seed][0]}
            real = {"frechet_classifier_distance": 0.5}
            run.generation.write_text(json.dumps({"extractors": [{"generated": distance, "real_test": real}]}))
    return Runs(runs, answers, "digits")


def test_a_better_gan_is_held_against_robgan_as_it_is_in_distance_and_accuracy(gans):
    """Top-k: distances -1 and -3; at epsilon .2 +4 and 0, so 2 with a standard error of (4 / sqrt 2) / sqrt 2 = 2."""
    found = better_gan.better_gan(gans)
    against = found.results["against_robgan"]
    assert set(against) == {"robgan_top_k", "adversarial_training"}
    top_k = against["robgan_top_k"]
    assert top_k["distance"] == {"by_seed": [-1.0, -3.0], "mean": -2.0, "standard_error": pytest.approx(1.0)}
    np.testing.assert_allclose(top_k["gain"]["by_seed"], [[0, 0, 4], [4, 0, 0]], atol=1e-9)
    assert top_k["gain"]["standard_error"] == pytest.approx([2, 0, 2])
    assert against["adversarial_training"]["distance"] is None
    assert found.results["updates"] == {"robgan": 50, "adversarial_training": 50, "robgan_top_k": 35}
    text = "\n".join(found.lines)
    assert "| top-k | -2.00 ± 1.00 | +2.0 ± 2.0 | +0.0 ± 0.0 | +2.0 ± 2.0 |" in text
    assert "Real test images are 0.50 from the training images." in text


def test_other_seeds_differ_in_the_seed_alone():
    config = "Experiment.seed = 0\nRobustnessEvaluation.seed = 0\n"
    assert with_seed({"config": config}, 7) == {"config": config.replace("Experiment.seed = 0", "Experiment.seed = 7")}
    with pytest.raises(ValueError, match="stands 0 times"):
        with_seed({"config": ""}, 7)


def test_the_sample_file_of_another_seed_is_that_of_its_own_generator():
    config = "Experiment.seed = 0\nsample_file.path = 'runs/generator/seed_0/samples.npz'\n"
    files = [pathlib.Path(f"runs/generator/seed_{seed}/samples.npz") for seed in (0, 12)]
    assert with_seed({"config": config}, 12, files) == {"config": config.replace("= 0", "= 12").replace("_0", "_12")}


def test_one_seed_has_no_standard_error():
    assert summarize([[1.0, 2.0]]) == {"by_seed": [[1.0, 2.0]], "mean": [1.0, 2.0], "standard_error": None}
    assert summarize([1, 2, 6]) == {"by_seed": [1, 2, 6], "mean": 3, "standard_error": pytest.approx(math.sqrt(7 / 3))}


def test_runs_of_another_configuration_data_or_evaluation_are_refused_by_name(finished):
    run = finished.runs[0]
    config = finished.expected[run.name]["config"]
    run.directory.config.write_text(config.replace("= 0.1", "= 0.3").replace("= 50", "= 60"))  # of Upkeep, which may
    with pytest.raises(NotComparableError) as refused:
        check(finished.runs, finished.expected)
    assert len(refused.value.problems) == 1
    assert f"{run.name} ({run.path}): LInf.epsilon was 0.3, and the experiment has 0.1" in str(refused.value)

    run.directory.config.write_text(config)
    run.directory.manifest.write_text(json.dumps({"run": ["data: others"]}))
    with pytest.raises(NotComparableError, match="was trained on 'data: others'"):
        check(finished.runs, finished.expected)

    run.directory.manifest.write_text(json.dumps({"run": [finished.expected[run.name]["data"]]}))
    other = finished.runs[1]
    found = json.loads(other.directory.robustness.read_text())
    other.directory.robustness.write_text(json.dumps({**found, "examples": 39}))
    with pytest.raises(NotComparableError, match=f"{other.name}: examples in .* is 39, in .* it is 40"):
        check(finished.runs, finished.expected)


def test_runs_that_are_not_done_are_named_with_their_step(finished):
    run = next(run for run in finished.runs if run.system == "robgan")
    folder = run.directory.checkpoints("finetuning")
    (folder / f"{20:08d}").rename(folder / f"{15:08d}")
    with pytest.raises(
        NotComparableError, match="is not done: at step 10 of 10 of cotraining, step 15 of 20 of finetuning"
    ):
        check(finished.runs, finished.expected)
    lines = list(
        plan(
            [run],
            {
                run.name: {
                    **finished.expected[run.name],
                    "rate": 1.0,
                    "stages": [{**stage, "flops": 100} for stage in finished.expected[run.name]["stages"]],
                }
            },
        )
    )
    assert "at step 10 of 10 of cotraining" in lines[0] and "training takes 3.3 minutes (at least" in lines[0]
    # 5 of 30 steps of 200 seconds
    assert "33 seconds" in lines[1]


def test_the_folder_of_the_extractor_and_the_scores_are_part_of_what_is_compared(tmp_path):
    run = next(run for run in described("fig8", "digits", "smoke", tmp_path) if run.system == "sn_gan")
    answer = write_run(run, [("cotraining", 10, 3)])
    scores = "\n".join(run.score_params)
    run.directory.config.write_text(answer["config"] + scores)
    assert differences(run, answer) == []
    run.directory.config.write_text(answer["config"] + scores.replace(str(tmp_path), "elsewhere"))
    (line,) = differences(run, answer)
    assert "classifier_extractor.directory was 'elsewhere" in line


def test_a_part_that_came_after_a_run_and_is_off_is_no_difference(tmp_path):
    run = next(run for run in described("fig8", "digits", "smoke", tmp_path) if run.system == "sn_gan")
    answer = write_run(run, [("cotraining", 10, 3)])
    later = "\nFineTuning.of_later = {}\n"
    run.directory.config.write_text(answer["config"] + "\n".join(run.score_params))
    assert differences(run, {**answer, "config": answer["config"] + later.format(None)}) == []
    (line,) = differences(run, {**answer, "config": answer["config"] + later.format(1)})
    assert line.endswith("FineTuning.of_later was not set, and the experiment has 1")
    # A part that went away had some effect.
    run.directory.config.write_text(run.directory.config.read_text() + later.format(None))
    assert len(differences(run, answer)) == 1


def test_passing_is_the_first_epoch_with_the_references_best():
    epochs = np.array([1.0, 2.0, 3.0, 4.0])
    reference = np.array([1.0, 2.0, 5.0, 4.0])
    found = figures.passing(epochs, reference, np.array([3.0, 5.0, 4.0, 6.0]), more_is_better=True)
    assert found == {"best": 5.0, "best_epoch": 3.0, "epoch": 2.0, "speed_up": 1.5}
    assert figures.passing(epochs, reference, np.array([3.0, 4.0, 4.0, 4.0]), True)["epoch"] is None
    found = figures.passing(epochs, -reference, np.array([-5.0, 0, 0, 0]), more_is_better=False)
    assert found["epoch"] == 1.0 and found["speed_up"] == 3.0


def test_fig8_gathers_scores_by_epoch(tmp_path):
    """SN-GAN's best, 3, is at epoch 2; others have it an epoch earlier (10 images a step, 100 in an epoch)."""
    runs = [run for run in described("fig8", "digits", "smoke", tmp_path, seeds=(0, 1)) if run.system != EXTRACTOR]
    answers = {run.name: write_run(run, [("cotraining", 20, 3)]) for run in runs}
    for run in runs:
        values = [(1.0, 9.0), (3.0, 5.0)] if run.system == "sn_gan" else [(3.0, 4.0), (4.0 + run.seed, 3.0)]
        run.directory.metrics.write_text(
            "".join(
                json.dumps(
                    {
                        "stage": "cotraining",
                        "step": step,
                        "images_seen": 10 * step,
                        "wall_seconds": 1.0,
                        "generator_classifier_score": score,
                        "generator_frechet_classifier_distance": distance,
                    }
                )
                + "\n"
                for step, (score, distance) in zip((10, 20), values)
            )
        )
        write_statistics(run, extractor="a" * 64)
    found = figures.fig8(Runs(runs, answers, "digits"))
    assert found.results["real"] == {"extractor": "a" * 64, "images": 90, "score": 2.5, "accuracy": 0.75}
    assert "90 real training images have a score of 2.50" in "\n".join(found.lines)
    score = found.results["scores"]["score"]
    assert score["epochs"] == [1.0, 2.0]
    assert score["curves"]["split_attack"]["mean"] == [3.0, 4.5]
    assert score["best"]["split_attack"]["by_seed"] == [4.0, 5.0]
    assert [one["epoch"] for one in score["passes_sn_gan"]["split_attack"]] == [1.0, 1.0]
    assert score["passes_sn_gan"]["ac_gan_attack"][0]["speed_up"] == 2.0
    distance = found.results["scores"]["Frechet distance"]
    assert distance["best"]["sn_gan"]["mean"] == 5.0 and distance["passes_sn_gan"]["split_attack"][0]["epoch"] == 1.0


def write_statistics(run, extractor):
    """The statistics of real images that scores while training leave, and others that an evaluation leaves."""
    for kept in (0, 50):
        key = {"kept": kept, "extractor": extractor, "count": 90}
        path = run.path / "generation" / f"digits_train_16_90_{kept}_0_{extractor[:12]}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, key=json.dumps(key), score=np.array([2.5, 0.0]), right=0.75)


def test_generators_that_were_scored_by_different_extractors_are_refused(tmp_path):
    runs = [run for run in described("fig8", "digits", "smoke", tmp_path) if run.system != EXTRACTOR]
    for number, run in enumerate(runs):
        run.path.mkdir(parents=True)
        write_statistics(run, extractor=("b" if number == 2 else "a") * 64)
    with pytest.raises(NotComparableError) as refused:
        of_real_images(runs)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{runs[2].name} (") and "scored by extractor bbbbbbbbbbbb against 90 images" in problem
    write_statistics(runs[2], extractor="a" * 64)
    with pytest.raises(NotComparableError, match="scored by 2 extractors, not by one"):
        of_real_images(runs)


def test_everything_is_written_and_plotted_in_a_small_file(finished, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (extra bench) is not installed")
    base = tmp_path / "out" / "table1"
    about = {"experiment": "table1", "data": "digits", "scale": "smoke"}
    compared = comparison("table1", "digits", "smoke")
    lines = report.write(base, compared, find("table1", "smoke", "digits"), about, finished, tables.table1(finished))
    assert lines == [f"wrote {base}.md, .json and .png"]
    assert sorted(path.name for path in base.parent.iterdir()) == ["table1.json", "table1.md", "table1.png"]
    assert base.with_suffix(".png").stat().st_size < 300_000
    written = json.loads(base.with_suffix(".json").read_text())
    assert written["seeds"] == [0, 1] and written["commits_of_training"] == {"abc": [run.name for run in finished.runs]}
    assert len(written["runs"]) == 4 and written["runs"][0]["commands"][0].startswith("python -m robgan_tf.train")
    shared = written["bindings_of_all_runs"]
    assert shared["LInf.epsilon"] == "0.1" and "Experiment.seed" not in shared
    for run, about_run in zip(finished.runs, written["runs"]):
        assert {**shared, **about_run["own_bindings"]} == bindings(run.directory.config.read_text())
    text = base.with_suffix(".md").read_text()
    attack = "PGD-20 on class_loss, linf, steps of 0.2 epsilon, random start; counted cumulatively"
    assert f"{attack}, on 40 test and 40 training images. Checks of each evaluation: 1, all passed." in text


def test_what_the_checks_found_of_a_run_stands_in_the_report(finished, tmp_path):
    one = finished.of("robgan")[1]
    found = json.loads(one.directory.robustness.read_text())
    found["checks"].append({"name": "Gradients reach the images", "status": "fail", "message": "of 3 they do not"})
    one.directory.robustness.write_text(json.dumps(found))
    about = {"experiment": "table1", "data": "digits", "scale": "smoke"}
    compared = comparison("table1", "digits", "smoke")
    report.write(
        tmp_path / "table1", compared, find("table1", "smoke", "digits"), about, finished, tables.table1(finished)
    )
    text = (tmp_path / "table1.md").read_text()
    assert "Checks of each evaluation: 1 or 2; those that did not pass:" in text
    assert "- robgan, seed 1: fail, Gradients reach the images: of 3 they do not\n" in text
    written = json.loads((tmp_path / "table1.json").read_text())
    failed = {run["system"]: run["evaluations"][0]["checks_not_passed"] for run in written["runs"] if run["seed"] == 1}
    assert failed == {"robgan": found["checks"][1:], "adversarial_training": []}


def test_the_papers_margins_are_those_of_the_text():
    table = paper.TABLE1["cifar10"]
    margins = [ours - base for ours, base in zip(table["robgan"], table["adversarial_training"])]
    np.testing.assert_allclose(margins[1:], [1.26, 3.69, 6.67], atol=1e-9)
