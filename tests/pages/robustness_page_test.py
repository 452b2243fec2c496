"""The page of an evaluation: complete, self-contained, escaped."""

import ast
import base64
import copy
import html.parser
import json
import pathlib
import re
from importlib.resources import files

import numpy as np
import pytest
import tensorflow as tf

from robgan_tf import robustness
from robgan_tf.pages.rendering import duration, interval, percent, short_path, value
from robgan_tf.pages.robustness_page import page, write_report

# Reports of older versions.
RESULTS = [
    path
    for path in sorted((pathlib.Path(__file__).resolve().parents[2] / "results").glob("*/*.json"))
    if {"curve", "clean", "class_names"} <= set(json.loads(path.read_text()))
]
VOID = {"meta", "img", "br"}  # elements without an end


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
        "certificates": [
            {"label": "Lipschitz margin", "of": "the network", "norm": "linf", "epsilon": 0.1, "epsilon_255": 12.75}
            | {
                "examples": 40,
                "right": 0.9,
                "accuracy": 0.0,
                "vacuous": True,
                "median_radius": 1e-9,
                "about": "a <bound>",
            }
        ],
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
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def test_page_holds_everything_that_was_measured(report, images):
    text = Page(page(report, images)).text
    for expected in (
        "90.0 % Clean test accuracy 95 % interval: 85.0 – 95.0",
        "67.5 % Test accuracy under attack at 12.75/255 (epsilon 0.1) 95 % interval: 52.0 – 80.0",
        "+15.0 points Generalization gap",  # 82.5 - 67.5
        "61.0 % Accuracy on corrupted images",
        "0.75 Local Lipschitz value (LLV)",
        "0.1 12.75/255 67.5 % (62.5 – 72.5) 82.5 % (77.5 – 87.5)",
        "12.75/255 (epsilon 0.1) Square 28 1 67.5 %",
        "No gradient path: black-box attacks only.",
        "<script>alert(1)</script> classified as cat 6.375/255 (epsilon 0.05), Square",
        "change × 20",
        "gaussian blur",
        "masked <gradients>",
        "class_loss",
        "2.15.1",
        "abcdef",
    ):
        assert expected in text, expected


def test_what_failed_comes_first_and_says_not_to_trust_the_rest(report):
    text = Page(page(report)).text
    words = ["1 of 3 checks of the evaluation failed. Do not trust", "Third", "gave a warning", "Second", "Clean test"]
    assert [text.index(word) for word in words] == sorted(text.index(word) for word in words)
    for check in report["checks"]:
        check["status"] = "pass"
    assert "All 3 checks of the evaluation passed." in Page(page(report)).text
    # Without sanity checks there still is the one of the arrays.
    assert "The sanity checks of the evaluation were not run." in Page(page({**report, "sanity_checked": False})).text
    del report["checks"]
    assert "The sanity checks of the evaluation were not run." in Page(page(report)).text


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
    (label,) = [
        attributes["aria-label"] for tag, attributes in tags if tag == "svg" and "aria-hidden" not in attributes
    ]
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


def test_corruptions_say_which_images_they_are(report):
    assert "The images: corruptions of robgan_tf, not CIFAR-10-C." in " ".join(Page(page(report)).text.split())
    report["corruptions"]["name"] = "CIFAR-10-C"
    assert "The images: CIFAR-10-C." in " ".join(Page(page(report)).text.split())


def test_a_certified_bound_is_shown_and_a_vacuous_one_called_so(report):
    text = Page(page(report)).text
    assert "Certified lower bounds" in text and "0.0 % (vacuous)" in text and "a <bound>" in text
    report["certificates"][0].update(accuracy=0.5, vacuous=False)
    assert "(vacuous)" not in Page(page(report)).text


def test_optional_parts_may_be_missing(report):
    full = copy.deepcopy(report)
    for key in (
        "train",
        "corruptions",
        "certificates",
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
    text = Page(page(report)).text
    assert "All 30 classes" in text and "class3 class7 5 33.3 %" in text


def test_shares_are_written_in_per_cent():
    assert percent(0.7527) == "75.3\u202f%" and interval([0.7, 0.8]) == "70.0 – 80.0"
    assert percent(None) == percent(float("nan")) == "–" and interval(None) == ""


def test_seconds_settings_and_paths_are_written_for_people():
    assert [duration(seconds) for seconds in (44.6, 426, 3600, 93_780)] == [
        "45 s",
        "7 min 6 s",
        "1 h 0 min",
        "26 h 3 min",
    ]
    assert [value(one) for one in (True, None, 0, 0.30000001, [], ["a", 1])] == [
        "yes",
        "none",
        "0",
        "0.3",
        "none",
        "a, 1",
    ]
    assert short_path("/home/me/runs/digits/export/1") == "digits/export/1" and short_path("runs/a") == "runs/a"


def test_checks_say_what_was_tried_what_came_of_it_and_the_verdict_in_words(report):
    report["checks"] = [
        {
            "name": "More steps and restarts find little more",
            "status": "warn",
            "value": 0.02,
            "message": "PGD-100 broke 2 of 100",
            "found": 2,
            "examples": 100,
            "interval": [0.0024, 0.0704],
            "detectable": 0.062,
        },
        {"name": "A check of another version", "status": "pass", "value": 0.0, "message": "all is well"},
    ]
    text = Page(page(report)).text
    checks = text[text.index("What was tried") :]
    words = [
        "! Warning",
        "More steps",
        "Tried: Try a longer attack",
        "Result: PGD-100 broke 2 of 100.",
        "95 % interval 0.2 % to 7.0 %; a fault of 6.2 % of all images would be found.",
        "✓ Passed",
        "A check",
    ]
    assert [checks.index(word) for word in words] == sorted(checks.index(word) for word in words)
    assert "(0.02)" not in text and "Result: All is well." in checks


def test_each_check_of_the_evaluation_is_explained():
    folder = pathlib.Path(robustness.__file__).parent
    trees = [
        ast.parse((folder / name).read_text())
        for name in ("checks.py", "answer_checks.py", "attack_checks.py", "gradient_checks.py")
    ]
    strings = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    strings |= {f"Two passes {where} are identical" for where in ("between the 8-bit levels", "within the ball")}
    explained = re.findall(r'^  "(.+?)": "', (files("robgan_tf.pages") / "templates/checks.html").read_text(), re.M)
    assert len(explained) == 24 and set(explained) <= strings


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_reports_of_older_versions_have_a_page(path):
    assert "Clean test accuracy" in Page(page(json.loads(path.read_text()))).text


def test_the_page_does_not_show_the_folders_of_the_machine_that_made_it(report):
    report["saved_model"] = "/home/me/runs/digits/export/1"
    text = page(report)
    assert "Classifier: digits/export/1." in text and "/home/me" not in text


def test_file_is_written_as_a_whole(tmp_path, report, images):
    write_report(report, tmp_path / "robustness.html", images)
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.html"]
    assert (tmp_path / "robustness.html").read_text(encoding="utf-8") == page(report, images)
