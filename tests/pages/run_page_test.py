"""The report of a run."""

import dataclasses
import json
import os
from html.parser import HTMLParser

from robgan_tf.pages.run_page import run_page, update_run_report
from robgan_tf.run import metrics
from robgan_tf.run.directory import RunDirectory
from robgan_tf.run.metrics import SHARE, Metric


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data):
        self.text += data


def test_the_page_has_what_the_folder_has(run):
    page = Page(run_page(run))
    assert "Rob-GAN run: my<run>" in page.text  # escaped
    assert "Co-training to step 5 (50 real images)." in page.text and "Exported as version 10." in page.text
    assert "1 of 1 checks" in page.text and "they do <not>" in page.text
    for text in (
        "75.0 % Clean test accuracy",
        "50.0 % Test accuracy under attack at 12.75/255 (epsilon 0.1)",
        "1 min 15 s Training time",
        "62.5 % Validation accuracy, under attack Co-training, step 5.",
        "62.5 % Validation accuracy, under attack Fine-tuning, step 9.",
        "step 1,000",
        "EPYC",
        "abc",
        "All 2 bindings",
        "export/10",
        "tensorflow/serving",
    ):
        assert text in page.text, text


def test_it_says_attacked_only_of_what_was_attacked(run):
    attacked = Page(run_page(run)).text
    assert "Training and validation images are under attack in this stage" in attacked
    with open(run.config, "a") as file:
        file.write("Experiment.validation_attacker = None\nCoTraining.attacker = None\n")
    page = Page(run_page(run)).text
    assert "Validation accuracy, clean" in page and "Validation accuracy, under attack" not in page
    assert "Training and validation images are clean in this stage" in page  # co-training
    assert "Training images are under attack and validation images clean in this stage" in page  # fine-tuning


def test_a_declared_metric_has_its_chart_with_what_a_healthy_run_looks_like(run):
    with open(run.metrics, "a") as file:
        record = {"stage": "cotraining", "step": 6, "images_seen": 60, "wall_seconds": 4.0}
        file.write(json.dumps({**record, "my_score": 0.25, "my_gauge": 7.0}) + "\n")
    score = Metric("my_score", "<my> score", "How <good>", "generator", SHARE, "", "It is <mine>.", "It rises & stays.")
    gauge = Metric("my_gauge", "gauge", "Gauges")
    (run.path / metrics.FILE).write_text(json.dumps({one.name: dataclasses.asdict(one) for one in (score, gauge)}))
    text = Page(run_page(run)).text
    for expected in ("How <good>", "<my> score: 25.0 %", "It is <mine>. A healthy run: It rises & stays.", "gauge: 7"):
        assert expected in text, expected
    folded = text.index("Learning rate, speed, memory and more")
    assert text.index("How <good>") < folded < text.index("Gauges")


def test_the_page_does_not_show_the_folders_of_the_machine_that_made_it(run):
    block = {"extractor": f"classifier in {run.path}/generation/classifier/8f98/1", "generated": {}, "real_test": {}}
    generation = {"generated": {"images": 20}, "extractors": [block], "classification_accuracy": None, "notes": []}
    run.generation.write_text(json.dumps(generation))
    page = run_page(run)
    assert str(run.path.parent) not in page and "classifier in generation/classifier/8f98/1" in page


def test_without_sanity_checks_the_accuracies_have_a_warning(run):
    report = json.loads(run.robustness.read_text())
    for check in report["checks"]:
        check["status"] = "pass"
    run.robustness.write_text(json.dumps(report))
    assert "All 1 checks of the evaluation passed" in Page(run_page(run)).text
    run.robustness.write_text(json.dumps({**report, "sanity_checked": False}))
    page = Page(run_page(run)).text
    assert "sanity checks of the evaluation were not run" in page and "passed" not in page


def test_it_needs_nothing_but_itself_and_every_picture_is_told_in_words(run):
    page = Page(run_page(run))
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images and all(image["src"].startswith("data:") and image["alt"] for image in images)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert drawings and all("aria-hidden" in drawing or drawing["aria-label"] for drawing in drawings)
    text = run_page(run)
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["robustness.html"]


def test_a_run_that_has_only_begun_has_a_page_too(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("LInf.epsilon = 0.1\n")
    assert "Not evaluated yet. Not exported yet." in Page(run_page(run)).text


def test_scores_of_the_generator_stand_beside_those_of_real_images(run):
    block = {
        "extractor": "digits classifier",
        "generated": {"classifier_score": 8.125, "recall": 0.5, "by_class": [1.0]},
        "real_test": {"classifier_score": 9.5, "recall": 0.75, "by_class": [2.0]},
    }
    report = {
        "generated": {"images": 2000},
        "extractors": [block],
        "classification_accuracy": {"generated": 0.5, "real": 0.9},
        "notes": ["No <Inception> score"],
    }
    run.generation.write_text(json.dumps(report))
    text = Page(run_page(run)).text
    for expected in (
        "2,000 generated images, by digits classifier",
        "Classifier score 8.125 9.5 higher",
        "Recall 0.5 0.75 higher",
        "Accuracy on test images 50.0 % 90.0 %",
        "No <Inception> score",
    ):
        assert expected in text, expected


def test_it_is_written_anew_only_where_something_is_newer(run):
    update_run_report(run)
    written = run.report.stat().st_mtime_ns
    update_run_report(run)
    assert run.report.stat().st_mtime_ns == written
    os.utime(run.metrics, ns=(written + 1, written + 1))
    update_run_report(run)
    assert run.report.stat().st_mtime_ns > written


def test_a_folder_without_a_run_gets_no_page(tmp_path):
    update_run_report(RunDirectory(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
