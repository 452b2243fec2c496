"""Both pages and TensorBoard in a real browser: Chromium without a window."""

import contextlib
import html
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.experiment import parts  # noqa: F401  (they declare the metrics)
from robgan_tf.experiment.describe import COMPARED, OUTCOMES
from robgan_tf.pages.robustness_page import write_report
from robgan_tf.pages.run_page import write_run_report
from robgan_tf.run.tensorboard import write_evaluation, write_run, write_scalars

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
# Shows a page as wide as a device is (a window can't be narrower than 500 px), and tells what came of it.
FRAME = """<!doctype html><body><iframe src="{page}" width="{width}" height="900"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, body = page.body;
  body.querySelectorAll("details").forEach(part => part.open = true);
  const all = selector => [...page.querySelectorAll(selector)];
  document.title = JSON.stringify({{
    width: frame.clientWidth, needed: page.documentElement.scrollWidth,
    background: frame.contentWindow.getComputedStyle(body).backgroundColor,
    // What scrolls sideways, and whether it is marked as such and can be reached with the keyboard.
    wide: all("body *").filter(part => part.scrollWidth > part.clientWidth && part.clientWidth)
      .filter(part => frame.contentWindow.getComputedStyle(part).overflowX != "visible")
      .map(part => part.matches(".scroll[tabindex], pre[tabindex]")),
    images: all("img").map(image => image.naturalWidth * image.alt.length),
    clipped: all("svg[role=img] text").filter(text => {{
      const one = text.getBoundingClientRect(), other = text.closest("svg").getBoundingClientRect();
      return one.left < other.left - 1 || one.right > other.right + 1 || one.bottom > other.bottom + 1;
    }}).map(text => text.textContent),
  }});
}};
</script>"""


def browse(address, *options):
    """The document that a browser makes of a page."""
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
        command += ["--virtual-time-budget=20000", "--dump-dom", *options, address]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def write_evaluation_page(folder):
    """A page with everything on it, and words that are too long for a phone."""
    curve = [
        {"epsilon": e, "epsilon_255": 127.5 * e, "accuracy": 0.9 - e, "interval": [0.8 - e, 0.95 - e], "attacks": []}
        for e in (0.0, 0.0157, 0.0314, 0.0627, 0.1255, 0.251, 0.502)
    ]
    for point in curve[1:]:
        point["attacks"] = [
            {"label": "APGD-100 on targeted_dlr_loss, 9 targets", "attacked": 9, "broken": 3, "accuracy": 0.5}
        ]
    names = [f"long-class-name-{number}" for number in range(12)]
    check = {
        "name": "Gradients reach the images",
        "message": "they do, as far as one can tell from numbers such as 1e-9",
    }
    report = {
        "dataset": "a_data_set_with_a_name_that_has_no_place_to_break_a_line",
        "class_names": names,
        "pixel_range": [-1, 1],
        "norm": "linf",
        "examples": 4,
        "clean": 0.9,
        "curve": curve,
        "train": {"curve": curve},
        "reference_epsilon": 0.0627,
        "worst_case": curve[3],
        "per_class": [{"name": name, "examples": 4, "clean": 0.9, "worst_case": 0.5} for name in names],
        "confusion": {"clean": [[4] * 12] * 12, "worst_case": [[4] * 12] * 12},
        "corruptions": {"mean": 0.5, "by_corruption": {"gaussian_noise": [0.5] * 5}},
        "checks": [{**check, "status": status, "value": 0.1} for status in ("pass", "warn", "fail")],
        "git_commit": "a" * 40,
    }
    pixels = np.zeros([3, 8, 8, 3], np.float32)
    examples = {"clean": pixels, "adversarial": pixels + 0.1, "labels": [0, 1, 2], "predictions": [1, 2, 0]}
    write_report(report, folder / "page.html", {**examples, "epsilon": [0.1] * 3, "attack": ["PGD"] * 3})


@pytest.mark.parametrize("page", ["run", "evaluation"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_the_screen_in_light_and_dark(run, tmp_path, page, width, dark):
    if page == "run":
        write_run_report(run)
        shutil.copy(run.report, tmp_path / "page.html")
    else:
        write_evaluation_page(tmp_path)
    (tmp_path / "frame.html").write_text(FRAME.format(page="page.html", width=width))
    options = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    document = browse((tmp_path / "frame.html").as_uri(), "--window-size=1400,1000", *options)
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", document).group(1)))
    assert seen["needed"] <= seen["width"] == width
    assert all(seen["images"]) and seen["images"] and seen["clipped"] == []
    assert all(seen["wide"]) and (seen["wide"] or width == 1280)
    assert (sum(map(int, re.findall(r"\d+", seen["background"])[:3])) < 200) == dark


@contextlib.contextmanager
def tensorboard(folder):
    """TensorBoard on a folder; gives its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", f"--port={port}", "--load_fast=false"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                if json.load(urllib.request.urlopen(f"{address}/data/runs", timeout=5)):
                    break
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_tensorboard_shows_the_runs_health_first_and_compares_runs(robustness, tmp_path):
    for name, epsilon in (("weak", "0.1"), ("strong", "0.2")):
        folder = tmp_path / name / "tensorboard"
        bindings = {"finetuning/LInf.epsilon": epsilon}
        write_run(folder, f"finetuning/LInf.epsilon = {epsilon}", bindings, {"git_commit": "abc"}, COMPARED, OUTCOMES)
        write_evaluation(folder, robustness)
        with tf.summary.create_file_writer(str(folder / "cotraining")).as_default():
            for step in range(1, 4):
                write_scalars({"class_accuracy": step / 4, "generator_loss": 2.0}, {"block_0_conv_1": 1.5}, step)
    with tensorboard(tmp_path) as address:
        document = browse(address, "--window-size=1280,900")
        groups = re.findall(r"\b(1_health|2_generator|5_sigma)\b", re.sub("<[^>]*>", " ", document))
        assert groups and groups[0] == "1_health"
        request = {
            "allowedStatuses": ["STATUS_UNKNOWN"],
            "colParams": [{"hparam": "finetuning/LInf.epsilon"}],
            "sliceSize": 10,
        }
        question = urllib.request.Request(
            f"{address}/data/plugin/hparams/session_groups",
            json.dumps({"experimentName": "", "startIndex": 0, **request}).encode(),
            {"Content-Type": "application/json"},
        )
        answer = json.load(urllib.request.urlopen(question, timeout=30))
    assert sorted(group["hparams"]["finetuning/LInf.epsilon"] for group in answer["sessionGroups"]) == [0.1, 0.2]
