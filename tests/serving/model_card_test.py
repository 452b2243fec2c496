"""MODEL_CARD.md: what it says of an export, and what where nothing is known."""

import json
import pathlib

from robgan_tf.serving import manifest, model_card

ABOUT = {
    "classes": ["cat", "dog"],
    "input": manifest.describe_input((16, 16, 1), 100),
    "compute": {"dtype": "float32", "xla": False},
}


def report():
    attacks = [{"name": "pgd", "label": "PGD-20 on class_loss"}, {"name": "square", "label": "Square, 500 queries"}]
    worst = {"epsilon": 0.2, "epsilon_255": 25.5, "accuracy": 0.76667, "interval": [0.72, 0.808]}
    return {
        "split": "test",
        "examples": 360,
        "clean": 0.98611,
        "clean_interval": [0.9678, 0.994],
        "curve": [],
        "worst_case": worst,
        "attacks": attacks,
        "checks": [
            {"name": "Clean passes agree", "status": "pass", "message": "they do", "value": 0.0},
            {"name": "More steps find little more", "status": "warn", "message": "3 % more", "value": 0.03},
        ],
    }


def test_the_card_says_data_training_threat_model_accuracy_and_checks():
    about = {
        "dataset": "digits",
        "training": ["cotraining: 1005 steps", "finetuning: 3218 steps"],
        "threat_model": {"norm": "linf", "epsilon": 0.2, "epsilon_255": 25.5},
        "accuracy": manifest.describe_accuracy(report()),
        "git_commit": "0123abc",
    }
    text = model_card.card({**ABOUT, **about})
    assert text.startswith("# Model card: digits\n\nAn image classifier of 2 classes")
    for line in (
        "- Images of 16 x 16 px, grey.",
        "- Classes: cat, dog.",
        "- cotraining: 1005 steps",
        "| clean images | 98.6 | 96.8 - 99.4 |",
        "| under attack, 25.5/255 | 76.7 | 72.0 - 80.8 |",
        "Attacks: PGD-20 on class_loss; Square, 500 queries. An image counts as right where it withstands all of them.",
        "1 of 2 pass.",
        "- Warning: More steps find little more. 3 % more",
        "## Licence",
        "Commit 0123abc.",
    ):
        assert line in text.splitlines(), line
    assert "Changes of an image within the linf ball of radius 0.2 on pixels in [-1, 1], which is 25.5 of 255" in text
    assert "\n\n\n" not in text


def test_what_is_not_known_is_said_to_be_so():
    text = model_card.card({**ABOUT, "accuracy": None})
    assert text.startswith("# Model card: a classifier\n") and "Not measured." in text
    assert text.count("Not stated.") == 3


def test_the_accuracy_is_said_to_be_of_another_type_where_it_is():
    about = {"compute": {"dtype": "bfloat16", "xla": False}, "accuracy": manifest.describe_accuracy(report())}
    assert "Measured in float32; this export computes in bfloat16." in model_card.card({**ABOUT, **about})


def test_the_card_goes_with_the_export_and_agrees_with_its_manifest(make_export, tmp_path):
    directory = pathlib.Path(make_export(tmp_path / "export", about={"dataset": "pets"}))
    described = json.loads((directory / manifest.FILE).read_text())
    text = (directory / model_card.FILE).read_text(encoding="utf-8")
    assert text == model_card.card(described)
    assert "# Model card: pets" in text and "Wölfe" in text
