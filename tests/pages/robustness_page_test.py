"""The page for people: complete, self-contained, escaped. The slow test renders it in Chromium where there is one."""

import base64
import copy
import html.parser
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.pages.charts import accuracy_curve
from robgan_tf.pages.elements import percent
from robgan_tf.pages.robustness_page import page, write_report

VOID = {"meta", "img"}  # elements without an end


def split_block(split, accuracies, attacks):
    curve = [
        {
            "epsilon": 0.1 * index,
            "epsilon_255": 12.75 * index,
            "accuracy": accuracy,
            "interval": [accuracy - 0.05, accuracy + 0.05],
            "attacks": attacks if index else [],
        }
        for index, accuracy in enumerate(accuracies)
    ]
    names = ("cat", "<script>alert(1)</script>", "dog")
    return {
        "split": split,
        "examples": 40,
        "clean": accuracies[0],
        "clean_interval": curve[0]["interval"],
        "curve": curve,
        "per_class": [{"name": name, "examples": 10, "clean": 0.9, "worst_case": 0.5} for name in names[:2]]
        + [{"name": "dog", "examples": 0, "clean": None, "worst_case": None}],
        "confusion": {"clean": [[9, 1, 0], [0, 10, 0], [0, 0, 0]], "worst_case": [[5, 4, 1], [2, 7, 1], [0, 0, 0]]},
        "lipschitz": {"mean": 0.75, "median": 0.5, "p95": 2.0, "max": 3.0},
    }


@pytest.fixture
def report():
    attacks = [
        {"name": "pgd", "label": "PGD, 20 steps", "attacked": 36, "broken": 8, "accuracy": 0.7},
        {"name": "square", "label": "Square", "attacked": 28, "broken": 1, "accuracy": 0.675},
    ]
    return {
        "dataset": 'pets & "others"',
        "class_names": ["cat", "<script>alert(1)</script>", "dog"],
        "pixel_range": [-1, 1],
        "norm": "linf",
        "attacks": [{"name": "pgd", "label": "PGD, 20 steps", "steps": 20, "objective": "class_loss"}],
        **split_block("test", [0.9, 0.675, 0.3], attacks),
        "train": split_block("train", [0.95, 0.825, 0.5], attacks),
        "reference_epsilon": 0.1,
        "worst_case": {"epsilon": 0.1, "epsilon_255": 12.75, "accuracy": 0.675, "interval": [0.52, 0.8]},
        "corruptions": {"mean": 0.61, "by_corruption": {"gaussian_blur": [0.8, 0.7, 0.6, 0.5, 0.45]}},
        "checks": [
            {"name": "First", "status": "pass", "value": 0.0, "message": "all is well"},
            {"name": "Second", "status": "warn", "value": 0.02, "message": "not converged"},
            {"name": "Third", "status": "fail", "value": None, "message": "masked <gradients>"},
        ],
        "notes": ["No gradient path: black-box attacks only."],
        "seed": 5,
        "versions": {"tensorflow": "2.15.1"},
        "git_commit": "abcdef",
    }


@pytest.fixture
def images():
    clean = np.random.default_rng(0).uniform(-0.8, 0.8, [2, 8, 8, 3]).astype(np.float32)
    return {
        "clean": clean,
        "adversarial": clean + np.float32([0.1, -0.05])[:, None, None, None],
        "labels": np.array([0, 1]),
        "predictions": np.array([2, 0]),
        "epsilon": np.array([0.1, 0.05]),
        "attack": ["PGD, 20 steps", "Square"],
    }


class Page(html.parser.HTMLParser):
    """Reads a page, and fails where tags are not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_page_holds_everything_that_was_measured(report, images):
    text = Page(page(report, images)).text.replace("\u202f", " ")
    for expected in (
        "90.0 % (85.0 – 95.0)",  # clean, with its interval
        "67.5 %",  # worst case
        "+15.0",  # 82.5 - 67.5, the gap
        "61.0 %",  # corruptions
        "0.75",  # LLV
        "No gradient path: black-box attacks only.",
        "<script>alert(1)</script> taken for cat at epsilon 0.05 (6.375/255), Square. Difference × 20.",
        "gaussian blur",
        "masked <gradients>",
        "class_loss",
        "2.15.1",
        "abcdef",
    ):
        assert expected in text, expected


def test_what_failed_comes_first_and_says_not_to_trust_the_rest(report):
    text = Page(page(report)).text
    words = ["1 of 3 checks failed: do not trust", "Third", "1 of 3 checks warn", "Second", "clean accuracy"]
    assert [text.index(word) for word in words] == sorted(text.index(word) for word in words)
    for check in report["checks"]:
        check["status"] = "pass"
    assert "All 3 checks passed." in Page(page(report)).text
    # Without sanity checks there still is the one of the arrays.
    assert "The sanity checks were not run." in Page(page({**report, "sanity_checked": False})).text
    del report["checks"]
    assert "The sanity checks were not run." in Page(page(report)).text


def test_page_needs_nothing_from_elsewhere_and_escapes_all_text(report, images):
    text = page(report, images)
    parsed = Page(text)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "a"}
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset", "background")]
        assert attributes.get("src", "data:").startswith(
            "data:image/png;base64,"[: len(attributes.get("src", "data:"))]
        )
    assert "url(" not in text and "@import" not in text and "http:" not in text and "https:" not in text
    assert ("meta", "Content-Security-Policy") in [(tag, given.get("http-equiv")) for tag, given in parsed.tags]


def test_every_figure_has_words_instead(report, images):
    tags = Page(page(report, images)).tags
    pictures = [attributes["alt"] for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 6 and all(pictures)
    (label,) = [attributes["aria-label"] for tag, attributes in tags if tag == "svg"]
    assert label.replace("\u202f", " ").startswith(
        "Accuracy against epsilon from 0 to 0.2: test from 90.0 % to 30.0 %; train from 95.0 % to 50.0 %."
    )


def test_images_are_the_pixels_that_were_given_and_the_difference_fills_the_range(report, images):
    sources = [attributes["src"] for tag, attributes in Page(page(report, images)).tags if tag == "img"]
    shown = [tf.io.decode_png(base64.b64decode(source.split(",")[1])).numpy() for source in sources]
    for index in range(2):
        clean, adversarial, difference = shown[3 * index : 3 * index + 3]
        np.testing.assert_array_equal(clean, np.round((images["clean"][index] + 1) * 127.5))
        np.testing.assert_array_equal(adversarial, np.round((images["adversarial"][index] + 1) * 127.5))
        assert np.all(difference == (255, 0)[index])  # all up, all down


def test_optional_parts_may_be_missing(report):
    full = copy.deepcopy(report)
    for key in (
        "train",
        "corruptions",
        "checks",
        "notes",
        "lipschitz",
        "per_class",
        "confusion",
        "worst_case",
        "attacks",
    ):
        Page(page({name: value for name, value in full.items() if name != key}))
        Page(page({**full, key: None}))
    bare = {name: full[name] for name in ("dataset", "class_names", "pixel_range", "examples", "clean", "curve")}
    assert "90.0" in Page(page(bare)).text
    empty = {"clean": np.zeros([0, 8, 8, 3]), "adversarial": np.zeros([0, 8, 8, 3])}
    assert (
        "Worst adversarial"
        not in Page(page(full, {**empty, "labels": [], "predictions": [], "epsilon": [], "attack": []})).text
    )


def test_many_classes_are_folded_and_their_confusions_listed(report):
    names = [f"class{number}" for number in range(30)]
    counts = 10 * np.eye(30, dtype=int)
    counts[3, 7] = 5
    report.update(class_names=names, confusion={"clean": counts.tolist(), "worst_case": None})
    report["per_class"] = [{"name": name, "examples": 10, "clean": 1.0, "worst_case": 0.5} for name in names]
    text = Page(page(report)).text.replace("\u202f", " ")
    assert "All 30 classes" in text and "class3class7533.3 %" in text


def test_curve_is_drawn_to_scale():
    points = [
        {"epsilon": e, "epsilon_255": 127.5 * e, "accuracy": a, "interval": [a, a]}
        for e, a in ((0, 1.0), (0.1, 0.5), (0.2, 0))
    ]
    drawn = accuracy_curve({"test": points}, 0.1)
    line = re.search(r'<polyline points="([^"]+)"', drawn).group(1)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    grid = [float(y) for y in re.findall(r'class="grid"[^>]*y1="([\d.]+)"', drawn)]
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.06) and y1 == pytest.approx((y0 + y2) / 2, abs=0.06)
    assert (y0, y2) == (grid[-1], grid[0])  # 100 % and 0 %
    assert f'class="reference" x1="{x1}"' in drawn


def test_shares_are_written_in_per_cent():
    assert percent(0.7527, [0.7, 0.8]) == "75.3\u202f% (70.0 – 80.0)"
    assert percent(None) == percent(float("nan")) == "–"


def test_file_is_written_as_a_whole(tmp_path, report, images):
    write_report(report, tmp_path / "robustness.html", images)
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.html"]
    assert (tmp_path / "robustness.html").read_text(encoding="utf-8") == page(report, images)


@pytest.mark.slow
@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_chromium_renders_it_wide_and_narrow_in_light_and_dark(tmp_path, report, images, scheme, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    write_report(report, tmp_path / "robustness.html", images)
    # Chromium's own window can't be as narrow as a phone, a frame can.
    frame = f'<iframe src="robustness.html" style="border:0;width:{width}px;height:2000px"></iframe>'
    (tmp_path / "frame.html").write_text(f'<body style="margin:0;background:red">{frame}')
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,2000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}"]
    command += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", (tmp_path / "frame.html").as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    pixels = np.asarray(PIL.Image.open(tmp_path / "shot.png").convert("RGB"))[:2000, :width].astype(int)
    background = pixels[3, 3]
    assert np.all(background > 240) if scheme == "light" else np.all(background < 60)
    # Something is drawn over the whole width, and nothing touches the border of the page: it does not overflow.
    drawn = np.any(np.abs(pixels - background) > 40, axis=-1)
    columns = np.flatnonzero(drawn.any(axis=0))
    assert 0.01 < drawn.mean() < 0.6 and 5 < columns[0] < width / 4 and width * 3 / 4 < columns[-1] < width - 5
