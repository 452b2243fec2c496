"""The report of a run for people: what its folder holds, as one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import pathlib

from tqdm import tqdm

from robgan_tf.bindings import bindings
from robgan_tf.pages.charts import accuracy_section, line_chart
from robgan_tf.pages.elements import Html, box, element, embedded, percent, section, table, tile, write_page
from robgan_tf.pages.elements import page as whole_page
from robgan_tf.run.directory import RunDirectory

_STAGES = {"cotraining": "Co-training", "finetuning": "Fine-tuning"}
# The bindings of the attackers, which a configuration may set to None.
_ATTACKERS = {"cotraining": "CoTraining.attacker", "finetuning": "FineTuning.attacker"}
_VALIDATION = "Experiment.validation_attacker"
# For each stage the charts: title, whether the values are shares, and metrics with the words for them, where {attacked}
# and {validated} are "attacked " if the stage has an attacker, and the validation.
_CHARTS = {
    "cotraining": (
        (
            "Classes told right",
            True,
            {
                "class_accuracy": "{attacked}training images",
                "validation_accuracy": "{validated}validation images",
                "validation_clean_accuracy": "validation images as they are",
                "generator_class_accuracy": "generated images",
            },
        ),
        (
            "What the discriminator tells from each other",
            True,
            {"real_accuracy": "{attacked}real taken for real", "fake_accuracy": "fake taken for fake"},
        ),
        ("Losses", False, {"generator_loss": "generator", "discriminator_loss": "discriminator"}),
        (
            "Norms of the gradients",
            False,
            {"generator_gradient_norm": "generator", "discriminator_gradient_norm": "discriminator"},
        ),
        ("Largest sigma of a layer", False, {"discriminator_largest_sigma": "discriminator"}),
        ("Diversity of the fakes of a class", False, {"diversity": "standard deviation of a pixel on [-1, 1]"}),
        (
            "Score of the averaged generator",
            False,
            {"generator_inception_score": "Inception score", "generator_classifier_score": "classifier score"},
        ),
        (
            "Frechet distance of generated from real images",
            False,
            {"generator_frechet_inception_distance": "FID", "generator_frechet_classifier_distance": "by a classifier"},
        ),
    ),
    "finetuning": (
        (
            "Classes told right",
            True,
            {
                "class_accuracy": "{attacked}training images",
                "validation_accuracy": "{validated}validation images",
                "validation_clean_accuracy": "validation images as they are",
                "fake_class_accuracy": "{attacked}generated images",
            },
        ),
        ("Loss", False, {"loss": "classifier"}),
        ("Norm of the gradient", False, {"classifier_gradient_norm": "classifier"}),
        ("Largest sigma of a layer", False, {"discriminator_largest_sigma": "classifier"}),
    ),
}
_SPEED = (
    ("Images per second", False, {"images_per_second": "real images"}),
    (
        "Shares of the time",
        True,
        {"attack_share": "attack, of a training step", "upkeep_share": "validation, grids and checkpoints"},
    ),
)
_GRIDS = {
    "generated": "Generated images at step {step}: a row for each class, a column for each noise z",
    "attack": "Training images at step {step} of co-training: as they are, attacked, and the difference magnified",
}


def update_run_report(run_directory: RunDirectory):
    """Writes `report.html` where something in the run's folder is newer than it; a matter of a second."""
    sources = [
        run_directory.config,
        run_directory.metrics,
        run_directory.manifest,
        run_directory.robustness,
        run_directory.generation,
        *run_directory.samples.glob("*.png"),
        *run_directory.exports.glob("[0-9]*"),
    ]
    report = run_directory.report
    newest = max((path.stat().st_mtime_ns for path in sources if path.exists()), default=None)
    if newest is not None and not (report.exists() and report.stat().st_mtime_ns >= newest):
        write_run_report(run_directory)


def write_run_report(run_directory: RunDirectory):
    """Writes `report.html` from what the run's folder holds, finished or not."""
    write_page(run_directory.report, run_page(run_directory))


def run_page(run_directory: RunDirectory) -> str:
    """Returns the HTML of `write_run_report`."""
    records = run_directory.metric_records()
    robustness = _json(run_directory.robustness)
    manifest = _json(run_directory.manifest)
    versions = sorted(run_directory.exports.glob("[0-9]*"), key=lambda path: int(path.name))
    title = f"Rob-GAN run: {run_directory.path.resolve().name}"
    config = bindings(run_directory.config.read_text()) if run_directory.config.exists() else {}
    parts = [
        element("header", element("h1", title), element("p", _where(records, robustness, versions), class_="dim")),
        _verdict(robustness),
        _tiles(records, robustness, config),
        accuracy_section(robustness) if robustness else "",
        _link(run_directory, robustness),
        *(_curves(stage, records, config) for stage in _STAGES),
        _grids(run_directory),
        _generator(_json(run_directory.generation)),
        _usage(run_directory, versions[-1] if versions else None),
        _environment(manifest),
        _config(run_directory),
    ]
    return whole_page(title, parts)


def _json(path: pathlib.Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _where(records, robustness, versions) -> str:
    """How far the run is."""
    done = [
        f"{_STAGES[stage].lower()} to step {last['step']:,} ({last['images_seen']:,} real images)"
        for stage in _STAGES
        for last in [record for record in records if record["stage"] == stage][-1:]
    ]
    done += [f"evaluated on {robustness['examples']:,} test images"] if robustness else ["not evaluated yet"]
    done += [f"exported as version {versions[-1].name}"] if versions else ["not exported yet"]
    return f"{'; '.join(done)}.".capitalize()


def _verdict(robustness) -> Html:
    """What the checks of the evaluation say, in a box."""
    if not robustness or not robustness.get("checks"):
        return Html("")
    checks = robustness["checks"]
    by_status = {name: [check for check in checks if check["status"] == name] for name in ("fail", "warn")}
    for status, words in (("fail", "failed: do not trust the accuracies below"), ("warn", "warn")):
        if by_status[status]:
            items = [(element("b", check["name"]), ": ", check["message"]) for check in by_status[status]]
            return box(status, f"{len(by_status[status])} of {len(checks)} checks of the evaluation {words}.", items)
    upper_bound = "Accuracy under the attacks that were tried is an upper bound: a stronger attack can only lower it."
    if not robustness.get("sanity_checked", True):
        return box("warn", f"The sanity checks of the evaluation were not run. {upper_bound}")
    return box("pass", f"All {len(checks)} checks of the evaluation passed. {upper_bound}")


def _tiles(records, robustness, config) -> Html:
    tiles = []
    if robustness:
        worst = robustness["worst_case"]
        where = f"of test images right under attack at epsilon {worst['epsilon']:.4g} ({worst['epsilon_255']:.4g}/255)"
        tiles += [tile(percent(robustness["clean"]), "of test images right as they are")]
        tiles += [tile(percent(worst["accuracy"]), where)]
    validations = [record["validation_accuracy"] for record in records if "validation_accuracy" in record]
    if validations:
        attacked = " under attack" if _has(config, _VALIDATION) else ""
        tiles.append(tile(percent(max(validations)), f"of validation images right{attacked}, at best"))
    if records:
        seconds = tqdm.format_interval(max(record["wall_seconds"] for record in records))
        tiles.append(tile(seconds, "of training"))
    return element("div", *tiles, class_="tiles") if tiles else Html("")


def _link(run_directory, robustness) -> Html:
    page = run_directory.robustness.with_suffix(".html")
    if not robustness or not page.exists():
        return Html("")
    link = element("a", page.name, href=page.name)
    return element("p", "Attacks, classes, worst examples and checks are in ", link, ", beside this file.")


def _has(config, binding) -> bool:
    return config.get(binding) != "None"


def _curves(stage, records, config) -> Html:
    records = [record for record in records if record["stage"] == stage]
    if not records:
        return Html("")
    attacks = {"attacked": _ATTACKERS[stage], "validated": _VALIDATION}
    attacks = {name: "attacked " if _has(config, binding) else "" for name, binding in attacks.items()}

    def chart(title, share, metrics):
        lines = {
            words.format(**attacks): [(record["step"], record[name]) for record in records if name in record]
            for name, words in metrics.items()
        }
        return line_chart(title, lines, share)

    charts = [chart(*described) for described in _CHARTS[stage]]
    speed = element("div", *(chart(*described) for described in _SPEED), class_="charts")
    return section(
        _STAGES[stage],
        element("div", *charts, class_="charts"),
        element("details", element("summary", "Speed"), speed),
    )


def _grids(run_directory) -> Html:
    figures = []
    for name, words in _GRIDS.items():
        files = sorted(run_directory.samples.glob(f"{name}_*.png"))
        if files:
            words = words.format(step=f"{int(files[-1].stem.rsplit('_', 1)[1]):,}")
            figures.append(
                element("figure", embedded(files[-1].read_bytes(), words), element("figcaption", f"{words}."))
            )
    return section("Images", element("div", *figures, class_="grids")) if figures else Html("")


def _generator(generation) -> Html:
    """Scores of generated images, beside those of real test images."""
    if not generation:
        return Html("")
    tables = []
    for block in generation["extractors"]:
        generated, real = block["generated"], block["real_test"]
        rows = [
            [name.replace("_", " "), f"{value:.4g}", f"{real[name]:.4g}"]
            for name, value in generated.items()
            if isinstance(value, float) and isinstance(real.get(name), float)
        ]
        title = f"By {block['extractor']}: {generation['generated']['images']:,} generated images"
        tables.append(table(title, ["", "generated", "real test images"], rows))
    accuracy = generation["classification_accuracy"]
    if accuracy:
        row = ["accuracy on test images", percent(accuracy["generated"]), percent(accuracy["real"])]
        tables.append(table("A classifier trained on these images alone", ["", "generated", "real"], [row]))
    return section(
        "Generator", *(element("div", one, class_="wide") for one in tables), *map(_note, generation["notes"])
    )


def _note(text: str) -> Html:
    return element("p", text, class_="dim")


def _usage(run_directory, version) -> Html:
    if version is None:
        return Html("")
    name = run_directory.path.resolve().name
    load = f"""import tensorflow as tf

model = tf.saved_model.load("{version}")  # TensorFlow alone, without robgan_tf
answer = model.signatures["encoded"](tf.constant([open("image.jpg", "rb").read()]))
best = int(tf.argmax(answer["scores"][0]))
print(answer["classes"][0, best].numpy().decode(), float(answer["scores"][0, best]))"""
    serve = f"""docker run -p 8501:8501 -e MODEL_NAME={name} \\
  -v {run_directory.exports.resolve()}:/models/{name}:ro tensorflow/serving"""
    return section(
        "Load and serve",
        element("p", f"Version {version.name} of the classifier in Python:"),
        element("pre", load, tabindex=0),
        element("p", "Behind TensorFlow Serving (all signatures, warm-up, clients: docs/serving.md):"),
        element("pre", serve, tabindex=0),
    )


def _environment(manifest) -> Html:
    if not manifest:
        return Html("")
    rows = [[name, value] for name, value in manifest["versions"].items()]
    rows += [["git commit", manifest["git_commit"]], ["seed", manifest["seed"]]]
    for name, value in manifest["machine"].items():
        rows.append([name.replace("_", " "), ", ".join(value) or "none" if isinstance(value, list) else value])
    rows += [line.split(": ", 1) for line in manifest["run"]]
    return section("Environment", element("div", table("What the run was trained with", ["", ""], rows), class_="wide"))


def _config(run_directory) -> Html:
    if not run_directory.config.exists():
        return Html("")
    text = run_directory.config.read_text()
    found = element("summary", f"All {len(bindings(text))} bindings (config.gin)")
    return section("Configuration", element("details", found, element("pre", text.strip(), tabindex=0)))
