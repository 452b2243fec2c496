"""The command of the reproduction, on the digits in small."""

import json
import subprocess
import sys

import numpy as np
import pytest
from reproduction.systems import SYSTEMS
from reproductions import ROOT


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
