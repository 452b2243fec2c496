"""The runs of the reproduction: that what is described can be built, and is what it says."""

import gin
import numpy as np
import pytest
from reproduction.expected import expected
from reproduction.experiments import EXPERIMENTS, comparison
from reproduction.gathering import Runs
from reproduction.runs import wanted_steps
from reproduction.scales import find, sizes
from reproduction.systems import EXTRACTOR, SAMPLED, SAMPLED_OF_MORE, SYSTEMS
from reproductions import ALL, ROOT, described


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
