"""The reproduction: that what it describes can be built, and that it gathers what hand-made runs hold."""

import json
import math
import pathlib
import subprocess
import sys

import gin
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # the tools are scripts, not a package

from reproduction import better_gan, figures, paper, recipe, report, tables  # noqa: E402
from reproduction.comparable import NotComparableError, check, differences  # noqa: E402
from reproduction.expected import expected, with_seed  # noqa: E402
from reproduction.gathering import Runs, of_real_images, summarize  # noqa: E402
from reproduction.planning import plan  # noqa: E402
from reproduction.runs import runs_of, wanted_steps  # noqa: E402
from reproduction.scales import find, sizes  # noqa: E402
from reproduction.systems import EXPERIMENTS, EXTRACTOR, SAMPLED, SAMPLED_OF_MORE, SYSTEMS, comparison  # noqa: E402

from robgan_tf.bindings import bindings  # noqa: E402

ALL = [(one, data, scale) for one in EXPERIMENTS for scale, sets in sizes(one).items() for data in sets]
EPSILONS = [0.0, 0.1, 0.2]


def described(experiment, data, scale, root, seeds=(0,), params=()):
    return runs_of(comparison(experiment, data, scale), find(experiment, scale, data), seeds, root, params)


@pytest.mark.parametrize(("experiment", "data", "scale"), ALL)
def test_every_description_is_a_configuration_that_gin_knows(experiment, data, scale, tmp_path, monkeypatch):
    from robgan_tf.experiment import build as _  # noqa: F401 - makes everything known to gin

    monkeypatch.chdir(ROOT)
    for run in described(experiment, data, scale, tmp_path):
        gin.clear_config(clear_constants=False)
        gin.parse_config_files_and_bindings(run.files, run.params, finalize_config=False)


def build(data, scale, root, params=()):
    """What all systems of all experiments come to, by the run's name."""
    there = [one for one in EXPERIMENTS if data in sizes(one).get(scale, {})]
    runs = {run.name: run for one in there for run in described(one, data, scale, root, params=params)}
    for file in {run.taken for run in runs.values() if run.taken}:
        write_samples(file, 3 if data == "cifar10" else 1)
    requests = [{"files": run.files, "params": run.learnt_params, "cost": False} for run in runs.values()]
    return runs, dict(zip(runs, expected(requests)))


def write_samples(file, channels):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, image=np.zeros([20, 16, 16, channels], np.uint8), label=np.arange(20) % 10)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("data", "scale"),
    [
        ("digits", "cpu"),
        ("digits", "few"),
        ("digits", "smoke"),
        ("cifar10", "cpu"),
        ("cifar10", "few"),
        ("cifar10", "paper"),
    ],
)
def test_all_systems_can_be_built_and_compared_classifiers_get_as_many_updates(data, scale, tmp_path, request):
    params = ()
    if data == "cifar10":
        params = (f'tfds_images.data_dir = "{request.getfixturevalue("data_dir")}/tfds"',)
    runs, found = build(data, scale, tmp_path, params)
    assert {run.system for run in runs.values()} >= {"robgan", "sn_gan", EXTRACTOR}
    for name, run in runs.items():
        steps = wanted_steps(run, found[name])
        assert steps and all(steps.values())
        assert not SYSTEMS[run.system].scored or list(steps) == ["cotraining"]
    recipes = [found[name] for name, run in runs.items() if SYSTEMS[run.system].recipe]
    assert len({one["stages"][0]["updates"] for one in recipes}) == bool(recipes)
    if "sampled_generator_of_more, seed 0" in found:
        of_few, of_more = (found[f"{name}, seed 0"]["stages"][0] for name in (SAMPLED, SAMPLED_OF_MORE))
        assert of_few["steps"] == pytest.approx(of_more["steps"], rel=0.005)
    if scale != "smoke":
        ours, theirs = (
            sum(stage["updates"] for stage in found[f"{name}, seed 0"]["stages"])
            for name in ("robgan", "adversarial_training")
        )
        assert ours == pytest.approx(theirs, rel=0.005)


@pytest.mark.parametrize(("data", "scale"), [(data, scale) for name, data, scale in ALL if name == "better_gan"])
def test_what_is_changed_of_the_gan_is_what_its_title_says(data, scale, tmp_path, monkeypatch):
    from robgan_tf.experiment import build as _  # noqa: F401 - makes everything known to gin

    monkeypatch.chdir(ROOT)

    def bound(system, name):
        (run,) = (run for run in described("better_gan", data, scale, tmp_path) if run.system == system)
        gin.clear_config(clear_constants=False)
        gin.parse_config_files_and_bindings(run.files, run.params, finalize_config=False)
        return gin.query_parameter(name)

    batch, rate = "CoTraining.batch_size", "linear.initial"
    assert bound("robgan_large_batches", batch) == 2 * bound("robgan", batch)
    assert bound("robgan_two_time_scales", f"generator/{rate}") == bound("robgan", f"cotraining/{rate}") / 4


def test_lengths_of_modifiers_are_not_overwritten(tmp_path):
    for experiment, data, scale in ALL:
        for run in described(experiment, data, scale, tmp_path):
            bound = any(param.startswith("FineTuning.epochs") for param in run.params)
            assert not (bound and SYSTEMS[run.system].from_nothing), run.name


@pytest.mark.parametrize("scale", ["cpu", "few"])
def test_systems_that_experiments_share_have_the_same_folder_and_configuration(scale, tmp_path):
    by_path = {}
    for experiment in (one for one, data, there in ALL if (data, there) == ("digits", scale)):
        for run in described(experiment, "digits", scale, tmp_path, seeds=(3, 4)):
            train = run.commands()[0]
            assert by_path.setdefault(run.path, train) == train
    assert len({path for path in by_path if path.parent.name == EXTRACTOR}) == 1  # one, for all seeds
    assert tmp_path / "robgan" / "seed_4" in by_path


def test_the_extractor_alone_has_a_size_of_its_own(tmp_path):
    own = find("fig8", "cpu", "cifar10").extractor
    assert own
    for run in described("fig8", "cifar10", "cpu", tmp_path):
        assert all(binding in run.params for binding in own) == (run.system == EXTRACTOR), run.name


def test_bindings_of_the_user_win_over_those_of_the_scores(tmp_path):
    own = ("TrainingScores.every = 7", "TrainingScores.extractor = @inception()", "Upkeep.log_every = 3")
    runs = described("fig8", "cifar10", "cpu", tmp_path, params=own)
    (run,) = (run for run in runs if run.system == "sn_gan")
    assert run.params[-3:] == own and "TrainingScores.every = 150" in run.params[:-3]
    (*_, train) = [part for part in run.commands()[0].arguments if "TrainingScores.every" in part]
    assert train.endswith("= 7")
    assert own[2] in run.learnt_params and not any(param.startswith("TrainingScores") for param in run.learnt_params)


def test_the_extractor_is_the_same_for_other_seeds(tmp_path):
    folders = {
        run.extractor for seeds in ((1, 2), (0, 1)) for run in described("fig8", "digits", "cpu", tmp_path, seeds)
    }
    assert folders == {None, tmp_path / EXTRACTOR / "seed_0"}
    assert Runs(described("fig8", "digits", "cpu", tmp_path, (1, 2)), {}, "digits").seeds == [1, 2]


def test_a_sample_file_is_made_by_the_generator_of_the_same_seed(tmp_path):
    runs = described("strongest", "digits", "cpu", tmp_path, seeds=(3, 4))
    makers = {run.seed: run for run in runs if run.part.samples}
    assert [run.system for run in makers.values()] == [SAMPLED, SAMPLED]
    made = {seed: run.commands()[-1] for seed, run in makers.items()}
    assert f"--out={made[4].makes}" in made[4].arguments and "--count=5000" in made[4].arguments
    for run in runs:
        reads = [param for param in run.params if param.startswith("sample_file.path")]
        if run.taken is None:
            assert not reads and (run.part.samples or "Experiment.generated = None" in run.params)
        else:
            assert run.taken == made[run.seed].makes and reads == [f"sample_file.path = '{run.taken}'"]
            assert runs.index(run) > runs.index(makers[run.seed])


def test_images_of_a_generator_that_saw_more_are_those_of_its_own_file(tmp_path):
    runs = described("strongest", "cifar10", "cpu", tmp_path)
    of_few, of_more = (next(run for run in runs if run.system == name) for name in (SAMPLED, SAMPLED_OF_MORE))
    assert 'tfds_images.train_split = "train[:6%]"' in of_few.params
    assert of_few.params[-4:] != of_more.params[-4:] and 'tfds_images.train_split = "train"' in of_more.params
    taken = {run.system: run.taken for run in runs}
    assert taken["recipe"] == of_few.sample_file and taken["recipe_of_more"] == of_more.sample_file
    some = comparison("strongest", "cifar10", "cpu").of(["recipe_of_more", "recipe_plain"])
    assert [part.system for part in some.parts] == [SAMPLED_OF_MORE, "recipe_plain", "recipe_of_more"]


def test_a_scale_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="no --scale=paper of --data=digits.*is there at --scale=cpu or few or smoke"):
        find("table1", "paper", "digits")
    with pytest.raises(ValueError, match="--experiment=strongest: imagenet64 is not there, but cifar10 and digits"):
        find("strongest", "cpu", "imagenet64")
    with pytest.raises(ValueError, match="--experiment=better_gan: digits is there at --scale=few or smoke"):
        find("better_gan", "cpu", "digits")


# Hand-made runs.

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


def command(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reproduce.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--experiment=table2"],
            "--experiment must be one of table1, fig2, fig6, fig7, fig8, section1, strongest, better_gan; got",
        ),
        (["--experiment=table1", "--data=digits", "--seeds=0,0"], "--seeds takes whole numbers, each once"),
        (["--experiment=table1", "--data=digits", "--gin_param=LInf.epsilom = 1"], "epsilom"),
    ],
)
def test_bad_flags_are_one_line(flags, message):
    result = command(*flags)
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.long
def test_table1_of_the_digits_in_small(tmp_path):
    flags = ["--experiment=table1", "--scale=smoke", "--data=digits", "--seeds=0,1", f"--root={tmp_path}/runs"]
    out = tmp_path / "out" / "table1"
    early = command(*flags, f"--out={out}", "--gather_only")
    assert early.returncode == 2 and "is not done: missing" in early.stderr and not out.parent.exists()
    result = command(*flags, f"--out={out}")
    assert result.returncode == 0, result.stderr
    written = json.loads(out.with_suffix(".json").read_text())
    margin = np.array(written["results"]["margin"]["by_seed"])
    for seed in (0, 1):
        test = []
        for system in ("robgan", "adversarial_training"):
            found = json.loads((tmp_path / f"runs/smoke/digits/{system}/seed_{seed}/robustness.json").read_text())
            test.append([100 * point["accuracy"] for point in found["curve"]])
        np.testing.assert_allclose(margin[seed], np.subtract(*test), atol=1e-9)
    lines = (tmp_path / "runs/smoke/digits/adversarial_training/seed_0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "classifier_test_lipschitz" in line] == [20, 40, 60, 80]
    again = command(*flags, f"--out={out}")
    assert again.returncode == 0 and again.stdout.count("done already") == 4
    changed = command(*flags, f"--out={out}", "--gather_only", "--gin_param=LInf.epsilon = 0.15")
    assert changed.returncode == 2 and "LInf.epsilon was 0.2, and the experiment has 0.15" in changed.stderr


@pytest.mark.slow
@pytest.mark.long
def test_strongest_trains_a_generator_first_and_goes_on_with_its_images(tmp_path):
    flags = ["--experiment=strongest", "--scale=smoke", "--data=digits", "--seeds=1", f"--root={tmp_path}/runs"]
    early = command(*flags, "--plan")
    assert early.returncode == 0 and " more runs need generated images of these first" in early.stdout
    early = command(*flags, "--gather_only")
    assert early.returncode == 2 and "samples.npz is missing" in early.stderr
    result = command(*flags, f"--out={tmp_path}/strongest")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "strongest.json").read_text())["results"]
    assert set(found["accuracy"]) == {name for name, system in SYSTEMS.items() if system.recipe}
    assert len(set(found["updates"].values())) == 1
    assert found["worth"]["adversarial weight perturbation"]["operations"] > 0.1  # each gradient twice
    again = command(*flags, f"--out={tmp_path}/strongest")
    assert again.returncode == 0 and again.stdout.count("to do") == 0
