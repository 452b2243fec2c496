"""Every command and Python block of README and docs runs, page by page, in order, in one folder with one tiny run.

Three pages have a test of their own, which reads more from them: see `OWN_TEST`.
"""

import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
OWN_TEST = {
    "docs/serving.md": "tests/serving/walkthrough_test.py",
    "docs/your_own_defence.md": "tests/your_own_defence_test.py",
    "docs/other_models.md": "tests/other_models_test.py",
}
_NETWORK = "sets up an environment, from the network"
_DATA = "needs CIFAR-10 or ImageNet"
_CLUSTER = "needs several machines; tests/tools/distributed_test.py and tests/several_workers_test.py do it on one"
# What is not run here, and why. The rest of the first match wins.
NOT_RUN = {
    r"^make (setup|test|demo PYTHON)": _NETWORK,
    r"^(\w+=\S+ )?pip install|^python3\.11 -m venv|-m pip install": _NETWORK,
    r"^~/venv-crosscheck": "needs foolbox, ART and AutoAttack; tests/benchmarks/crosscheck_test.py",
    r"^source ": "is of the shell alone",
    r"^tensorboard ": "is a server; tests/pages/browser_test.py opens it",
    r"^python -m robgan_tf\.train (?!.*--dry_run).*gin/(strongest/)?(cifar10|imagenet)\w*\.gin": _DATA,
    r"--saved_model=runs/cifar10_cpu|@cifar10_c_accuracy": _DATA,
    r"--source=(IMAGENET|/data)|--tfds=imagenet|data/imagenet143": _DATA,
    r"--most_confident=100000": "needs a million images; tests/data/sample_preparation_test.py",
    r"reproduce\.py (?!.*--plan)": "takes hours; tests/tools/reproduce_test.py does it in small",
    r"^(export TF_CONFIG|sbatch|kubectl|python tools/data_service)|robgan_tf\.train \.\.\.": _CLUSTER,
    r"tools/to_(mlflow|wandb)": "needs MLflow and Weights & Biases; tests/tools/tracking_test.py",
    r"\bbenchmarks/": "measures for minutes to hours; tests/benchmarks/",
    r"tests/both_tensorflows_test\.py": "is a test itself",
}
# Trained in small by tests/experiment/build_test.py and tests/training/finetuning_test.py; here their configuration is
# read, with the bindings, and built.
BUILT = r"robgan_tf\.train (?!.*--dry_run).*(gin/baselines/|gin/strongest/|--gin_param)"
# Behind the configurations in the test's folder, so that the commands themselves stay as they are written.
TINY = """
Generator.base_width = 2
Discriminator.base_width = 2
CoTraining.epochs = 0.1
FineTuning.epochs = 0.1
RobustnessEvaluation.attacks = [@evaluation/PGD()]
RobustnessEvaluation.epsilons = (0.0, 0.1)
RobustnessEvaluation.test_examples = 20
RobustnessEvaluation.checks = None
GenerationEvaluation.samples = 300
GenerationEvaluation.subset = 50
GenerationEvaluation.similarity_images = 20
GenerationEvaluation.few_samples = True
GenerationEvaluation.inception = None
ClassifierTraining.updates = 3
PreActResNet18.base_width = 2
"""
TINY_OF = {
    "digits": TINY,
    "cifar10": "\nGenerator.base_width = 2\nDiscriminator.base_width = 2\n",
    "imagenet128": "\nGenerator.base_width = 2\nDiscriminator.base_width = 2\nconfigure.replicas = 1\n",
}
_COMMAND = re.compile(r"(\w+=\S+ )*(([~.][\w/.-]*/)?python[\d.]*|make|pip|tensorboard|source|export|sbatch|kubectl) ")


def pages():
    """README, then the pages in the order of the menu, then those of the tools."""
    menu = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    return ["README.md", *(f"docs/{name}" for name in menu), "tools/README.md", "benchmarks/README.md"]


def blocks(text):
    """(language, text) of fenced and of indented blocks, in order; the language of an indented one is ""."""
    fenced = r"^```(\w*)\n((?:.*\n)*?)^```$"
    indented = r"(?<=\n\n)((?:(?:    .*)?\n)+)"
    for match in re.finditer(f"{fenced}|{indented}", text, re.MULTILINE):
        if match[2] is not None:
            yield match[1], match[2]
        else:
            yield "", re.sub(r"^    ", "", match[3], flags=re.MULTILINE)


def steps(page):
    """(kind, text) of a page's Python blocks and commands, continued lines joined, in order."""
    for language, text in blocks((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            yield "python", text
        elif language in ("bash", ""):
            for line in re.sub(r"\\\n\s*", "", text).splitlines():
                if language == "bash" or _COMMAND.match(line):
                    yield "command", line.partition("  #")[0].strip()


def reason(command):
    """Why a command is not run here; None where it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


STEPS = [(page, *step) for page in pages() if page not in OWN_TEST for step in steps(page)]
COMMANDS = [text for _, kind, text in STEPS if kind == "command"]


def test_what_is_not_run_is_still_written_somewhere_and_tests_that_are_named_exist():
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern
    for test in itertools.chain(OWN_TEST.values(), *(re.findall(r"tests/[\w/.]+", why) for why in NOT_RUN.values())):
        assert (ROOT / test).exists(), test
    assert len({command for command in COMMANDS if reason(command) is None}) > 25


def write_pictures(folder):
    """Photographs of two classes, as docs/your_own_images.md lays them out, and its pictures.gin."""
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 10)):
        for label, name in enumerate(("beagle", "samoyed")):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 128, [24, 30, 3]) + 127 * label
                Image.fromarray(pixels.astype("uint8")).save(place / f"{number:04}.jpg")
    (folder / "dog.jpg").write_bytes((folder / "pictures/val/beagle/0000.jpg").read_bytes())
    page = (ROOT / "docs/your_own_images.md").read_text(encoding="utf-8")
    whole, small = [text for _, text in blocks(page) if text.startswith(("include", "Generator.base_width"))]
    tiny = "CoTraining.batch_size = 4\nFineTuning.batch_size = 4\nCoTraining.discriminator_steps = 1\n"
    evaluation = [line for line in TINY.splitlines() if line.startswith("RobustnessEvaluation")]
    (folder / "pictures.gin").write_text("\n".join([whole, small, tiny, *evaluation, ""]))


def write_samples(folder):
    """Files of generated images as docs/strongest.md has them, and a classifier for them in place of CIFAR-10's."""
    images, labels = np.zeros([40, 16, 16, 1], np.uint8), np.arange(40) % 10
    np.savez_compressed(folder / "compressed.npz", image=images, label=labels)
    np.savez_compressed(folder / "unlabelled.npz", image=images)
    for part in ("20m_part1", "20m_part2"):
        np.savez(folder / f"{part}.npz", image=images, label=labels)
    (folder / "runs").mkdir()
    (folder / "runs" / "cifar10").symlink_to("digits")


class Place:
    """A folder with the repository's, configurations scaled down, and a process that runs the commands."""

    def __init__(self, folder):
        self.folder, self.printed = folder, folder / "printed.txt"
        for name in ("tools", "benchmarks", "docs"):
            (folder / name).symlink_to(ROOT / name)
        subprocess.run(["cp", "-r", str(ROOT / "gin"), str(folder / "gin")], check=True)
        for name, bindings in TINY_OF.items():
            with open(folder / "gin" / f"{name}.gin", "a", encoding="utf-8") as file:
                file.write(bindings)
        write_pictures(folder)
        write_samples(folder)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "forked_commands.py"), str(self.printed)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *words):
        """Runs `python WORDS...`; returns its exit status and what it printed."""
        print(json.dumps(words), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        return status, self.printed.read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path):
    """See `Place`."""
    made = Place(tmp_path)
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=30)


def words_of(kind, text):
    """The arguments of Python for a step."""
    if kind == "python":
        return ["-c", text]
    if text == "make demo":
        (text,) = re.findall(r"^demo:.*\n\t\$\(VENV\)/bin/(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    program, *words = shlex.split(text)
    assert program == "python", f"{text}: neither run nor in NOT_RUN"
    if re.search(BUILT, text):
        files, params = (
            [one.partition("=")[2] for one in words if one.startswith(f"--gin_{kind}")] for kind in ("file", "param")
        )
        return ["-c", f"from robgan_tf import command_line\ncommand_line.build_experiment({files}, {params})"]
    return words


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_every_page_runs_in_order(place):
    done = set()
    for page, kind, text in STEPS:
        words = None if kind == "command" and reason(text) else words_of(kind, text)
        if words is None or tuple(words) in done:
            continue
        status, printed = place.run(*words)
        assert status == 0, f"{page}: {text}\n{printed[-3000:]}"
        done.add(tuple(words))
    assert len(done) > 30
    for made in ("grid.png", "noise.gif", "attack.png", "samples.npz", "quick.json", "runs/digits/report.html"):
        assert (place.folder / made).is_file(), made
    assert (place.folder / "runs/digits/export/2").is_dir() and (place.folder / "runs/pictures/export/1").is_dir()
