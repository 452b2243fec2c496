"""The demo's configuration through the commands, at reduced steps, as a user types them."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Runs where robgan_tf can't be imported: with TensorFlow alone.
LOAD = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "robgan_tf":
            raise ImportError("robgan_tf is not here")

sys.meta_path.insert(0, Blocker())
import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
answer = model.signatures["serving_default"](tf.constant(images))
with tf.GradientTape() as tape:
    x = tf.constant(images.astype(np.float32) / 127.5 - 1)
    tape.watch(x)
    logits = model.logits(x)
gradient = tape.gradient(logits, x)
assert "robgan_tf" not in sys.modules
answer["classes"] = answer["classes"].numpy().astype("S")
np.savez(sys.argv[3], gradient=gradient, float_logits=logits, **answer)
"""


def command(module, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"robgan_tf.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("end_to_end")
    small = [
        "CoTraining.epochs=6",
        "FineTuning.epochs=12",
        "Experiment.sample_every=10",
        "Experiment.validate_every=40",
    ]
    small.append("finetuning/linear.initial=2e-3")  # after so little co-training the demo's rate is too high
    params = [*small, f"digits.data_dir='{folder / 'tfds'}'"]
    return ["--gin_file=gin/digits.gin", *[f"--gin_param={param}" for param in params], f"--run_dir={folder / 'run'}"]


@pytest.fixture(scope="module")
def run(flags):
    finished = command("train", *flags, TF_CPP_MIN_LOG_LEVEL="2")
    assert finished.returncode == 0, finished.stderr
    # Where one of TensorFlow's graph optimizers fails it says so as an error of its log, and does nothing more.
    assert "meta_optimizer" not in finished.stderr
    return pathlib.Path(flags[-1].split("=", 1)[1])


def test_a_run_leaves_what_the_contract_says(run):
    assert {path.name for path in run.iterdir()} == {
        "config.gin",
        "data.json",
        "checkpoints",
        "tensorboard",
        "samples",
        "metrics.json",
        "metrics.jsonl",
        "manifest.json",
        "report.html",
        "robustness.json",
        "robustness.html",
        "export",
    }
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(stages) == {"cotraining", "finetuning"}
    report = json.loads((run / "robustness.json").read_text())
    assert report["dataset"] == "digits" and report["examples"] == 360
    assert report["clean"] == report["curve"][0]["accuracy"] > 0.2  # it has learnt something: chance is 0.1
    assert not [check for check in report["checks"] if check["status"] == "fail"] and len(report["checks"]) == 23
    assert sorted(path.name.split("_")[0] for path in (run / "samples").iterdir())[0] == "attack"


def test_the_same_command_again_does_nothing(run, flags):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = command("train", *flags)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_the_export_answers_in_a_process_without_the_package(run, tmp_path):
    from robgan_tf.data.sources import tfds_images

    images = tfds_images.digits(data_dir=str(run.parent / "tfds")).test.images[:8]
    np.save(tmp_path / "images.npy", images)
    arguments = [str(run / "export" / "1"), str(tmp_path / "images.npy"), str(tmp_path / "answer.npz")]
    subprocess.run([sys.executable, "-c", LOAD, *arguments], cwd=tmp_path, check=True, timeout=300)
    answer = np.load(tmp_path / "answer.npz")
    assert answer["scores"].shape == answer["logits"].shape == (8, 10)
    np.testing.assert_allclose(answer["scores"].sum(axis=1), 1, rtol=1e-5)  # softmax in float32
    np.testing.assert_allclose(answer["float_logits"], answer["logits"], rtol=1e-4, atol=1e-4)  # scaling in NumPy
    assert answer["classes"][0].tolist() == [str(digit).encode() for digit in range(10)]
    assert np.abs(answer["gradient"]).max() > 0


def test_evaluate_of_the_export_equals_that_of_the_run(run, flags, tmp_path):
    out = tmp_path / "report.json"
    evaluated = command("evaluate", f"--saved_model={run / 'export' / '1'}", f"--out={out}", *flags[:-1])
    assert evaluated.returncode == 0, evaluated.stderr
    of_export, of_run = json.loads(out.read_text()), json.loads((run / "robustness.json").read_text())
    # One image of 360 may stand exactly on the border, where rounding decides.
    for a, b in zip(of_export["curve"], of_run["curve"]):
        assert abs(a["accuracy"] - b["accuracy"]) <= 1 / 360


def test_evaluate_of_a_run_is_repeatable_and_brings_its_page_up_to_date(run):
    old = json.loads((run / "robustness.json").read_text())
    page = run / "report.html"
    os.utime(page, ns=(page.stat().st_mtime_ns, 0))
    (event,) = (run / "tensorboard" / "evaluation").iterdir()
    evaluated = command("evaluate", f"--run_dir={run}")
    assert evaluated.returncode == 0, evaluated.stderr
    new = json.loads((run / "robustness.json").read_text())
    assert new.pop("wall_seconds") and old.pop("wall_seconds") and new == old
    assert page.stat().st_mtime_ns > (run / "robustness.json").stat().st_mtime_ns
    (new_event,) = (run / "tensorboard" / "evaluation").iterdir()
    assert new_event != event


def test_sample_writes_a_grid_of_the_classes_asked_for(run, tmp_path):
    import PIL.Image

    for name, arguments in {"a": ["--labels=0,3"], "b": ["--labels=0,3"], "c": ["--labels=0,3", "--seed=1"]}.items():
        sampled = command("sample", f"--run_dir={run}", f"--out={tmp_path / name}.png", "--columns=4", *arguments)
        assert sampled.returncode == 0, sampled.stderr
    a, b, c = (np.asarray(PIL.Image.open(tmp_path / f"{name}.png")) for name in "abc")
    assert a.shape[0] == 2 * 50 + 2
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.slow
def test_sample_shows_what_lies_between_and_what_attacks_do(run, tmp_path):
    import PIL.Image

    # Rows of the pictures: 2 classes, 1 pair of classes, 4 noise vectors in each frame, 3 images with names of three
    # lines under a title of three lines and the names of the columns.
    heights = {"noise.png": 102, "classes.png": 52, "classes.gif": 202, "attack.png": 4 * 18 + 3 * 56 + 2}
    for name, height in heights.items():
        arguments = [f"--what={name.split('.')[0]}", f"--out={tmp_path / name}", "--columns=3", "--labels=0,3"]
        sampled = command("sample", f"--run_dir={run}", *arguments)
        assert sampled.returncode == 0, sampled.stderr
        picture = PIL.Image.open(tmp_path / name)
        assert picture.height == height
        assert getattr(picture, "n_frames", 1) == (48 if name.endswith("gif") else 1)


def test_the_report_of_a_run_is_written_anew_on_request(run):
    before = (run / "report.html").stat().st_mtime_ns
    assert command("report", f"--run_dir={run}").returncode == 0
    assert (run / "report.html").stat().st_mtime_ns > before
    page = (run / "report.html").read_text()
    assert "Load and serve" in page and "not exported" not in page and page.count("<svg") > 10


def test_tensorboard_gets_every_stage_with_its_images_and_what_the_run_is(run):
    import tensorflow as tf

    tags = {}
    for path in run.glob("tensorboard/**/events.out.tfevents.*"):
        events = tf.compat.v1.train.summary_iterator(str(path))
        found = {value.tag for event in events for value in event.summary.value}
        tags[path.parent.relative_to(run).as_posix()] = found
    assert {"run/config", "run/manifest", "_hparams_/session_start_info"} <= tags["tensorboard"]
    assert {"images/generated", "images/attack", "2_generator/loss", "5_sigma/class_head"} <= tags[
        "tensorboard/cotraining"
    ]
    assert {"1_health/accuracy_valid", "6_machine/attack_share"} <= tags["tensorboard/finetuning"]
    assert "1_health/test_attacked" in tags["tensorboard/evaluation"]


def test_export_again_makes_the_next_version(run):
    exported = command("export", f"--run_dir={run}")
    assert exported.returncode == 0, exported.stderr
    assert sorted(path.name for path in (run / "export").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train", [], "--gin_file is missing"),
        ("train", ["--gin_fil=x"], "there is no flag --gin_fil; did you mean --gin_file?"),
        ("train", ["--gin_file=gin/nothing.gin"], "gin/nothing.gin"),
        ("train", ["--gin_file=gin/digits.gin", "--stages=cotrain,deploy"], "has no deploy"),
        ("evaluate", [], "give either --run_dir=R or --saved_model=DIR"),
        ("evaluate", ["--saved_model=/nowhere", "--gin_file=gin/digits.gin"], "/nowhere"),
        ("export", ["--run_dir=/nowhere"], "--run_dir=/nowhere holds no run"),
        ("sample", ["--run_dir=/nowhere", "--out=grid.jpg"], "--out must name a .png file for --what=grid"),
        (
            "sample",
            ["--run_dir=/nowhere", "--out=a.gif", "--what=attack"],
            "--out must name a .png file for --what=attack",
        ),
        ("sample", ["--run_dir=/nowhere", "--out=a.png", "--what=video"], "--what must be one of grid, noise, classes"),
        ("report", [], "--run_dir is missing"),
        ("report", ["--run_dir=/nowhere"], "--run_dir=/nowhere holds no run"),
        ("train", ["--gin_file=gin/digits.gin", "--profile_steps=9,3"], "--profile_steps takes the first and the last"),
    ],
)
def test_wrong_flags_end_with_one_line_and_status_2(module, arguments, message):
    failed = command(module, *arguments)
    assert failed.returncode == 2
    lines = failed.stderr.splitlines()
    assert len(lines) == 1 and message in lines[0], failed.stderr


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    for name in ("digits", "weaker"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.gin").touch()
    for given in ("runs", "runs/digit"):
        failed = command("report", f"--run_dir={tmp_path}/{given}")
        assert failed.returncode == 2
        assert re.search(r"holds no run \(no config.gin\); there is .*/runs/digits", failed.stderr), failed.stderr


def test_a_loss_that_is_never_finite_stops_the_run_and_names_step_cause_and_checkpoint(flags, tmp_path):
    broken = command(
        "train", *flags[:-1], f"--run_dir={tmp_path / 'run'}", "--gin_param=cotraining/linear.initial=1e38"
    )
    assert broken.returncode == 1
    last = broken.stderr.splitlines()[-1]
    assert re.search("became .*(nan|inf)", last) and "of cotraining" in last
    assert "went back to the last checkpoint 3 times" in last and "Weights that are not finite: generator" in last
    assert re.search("The last good checkpoint is .*cotraining/00000000; the same command goes on", last)
    assert "Traceback" not in broken.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints" / "cotraining").iterdir()] == ["00000000"]


def test_a_run_folder_of_another_configuration_is_refused_and_named(run, flags):
    failed = command("train", *flags, "--gin_param=LInf.epsilon=0.1")
    assert failed.returncode == 2
    assert "was made by another configuration" in failed.stderr and "LInf.epsilon was 0.2, is 0.1" in failed.stderr
    assert "Traceback" not in failed.stderr
