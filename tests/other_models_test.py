"""docs/other_models.md as it stands: a network of PyTorch becomes a SavedModel, is attacked and compared."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "other_models.md").read_text(encoding="utf-8")
SHORT = ["RobustnessEvaluation.test_examples = 100", "RobustnessEvaluation.checks = None"]


@pytest.mark.slow
def test_a_network_of_pytorch_is_attacked_and_has_an_entry_for_robustbench(tmp_path):
    pytest.importorskip("torch", reason="needs the extra `autoattack` or `bench`")
    library, use = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "from_torch.py").write_text(library)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run("-c", use)
    lines = [line for line in PAGE.splitlines() if line.startswith("    python -m robgan_tf.evaluate")]
    for line in lines:
        run(*shlex.split(line)[1:], *(f"--gin_param={binding}" for binding in SHORT))
    report, entry = (json.loads((tmp_path / name).read_text()) for name in ("theirs.json", "entry.json"))
    assert report["clean"] > 0.7 and report["worst_case"]["accuracy"] < report["clean"]
    assert set(entry) >= {"link", "name", "authors", "dataset", "venue", "architecture", "eps", "autoattack_acc"}
    assert entry["clean_acc"] == f"{100 * report['clean']:.2f}" and entry["eps"] == "25.5/255"
    assert "100 test images" in run("-m", "robgan_tf.compare", "theirs.json", "theirs.json")
