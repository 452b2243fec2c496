"""What the stages' metrics mean and are in a healthy run; and the signs of collapse."""

from __future__ import annotations

from robgan_tf.run.metrics import SHARE, Metric, declare

# Signs of collapse: accuracy of the discriminator on real and fake images, and standard deviation of the fakes of a
# class, on [-1, 1] (photographs have about 0.5).
_SATURATED, _ALIKE = 0.995, 0.02
# Catastrophic over-fitting: accuracy under the stronger attack as a share of its best. It falls to nearly 0, at once.
_COLLAPSED = 0.5

declare(
    Metric(
        "generator_loss",
        "generator",
        "Loss",
        group="generator",
        healthy="Both losses stay within a band after the first steps. The players work against each other, so neither "
        "has to fall; growth without end is a failure.",
    ),
    Metric("discriminator_loss", "discriminator", "Loss", group="discriminator"),
    Metric(
        "discriminator_penalty", "penalty", "Penalty", "discriminator", description="Weighted; not part of the loss."
    ),
    Metric(
        "generator_class_accuracy",
        "fakes of the requested class",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="fakes_of_class",
        description="Share of generated images that the discriminator assigns to the class they were made for.",
        healthy="Fakes of the requested class come close to 100 %; near chance the generator ignores the class.",
    ),
    Metric(
        "fake_accuracy",
        "fakes detected",
        "Real or fake",
        group="health",
        unit=SHARE,
        tag="fakes_detected",
        description="Share of generated images that the discriminator classifies as fake.",
        healthy="The two lines are not both near 100 %. With an attacker, it is common and not by itself a failure "
        "that nearly all fakes are detected and few real images classified as real: attacked real images look fake, "
        "and the generator learns from the scores, not from the verdicts. Judge it by its images and their classes.",
    ),
    Metric(
        "real_accuracy",
        "real classified as real",
        "Real or fake",
        group="health",
        unit=SHARE,
        tag="real_as_real",
        description="Share of (attacked) real images that the discriminator classifies as real.",
    ),
    Metric("loss", "loss", "Loss", group="classifier", healthy="It falls and levels off."),
    Metric(
        "fake_class_accuracy",
        "accuracy on generated images",
        "Classification accuracy",
        group="health",
        unit=SHARE,
        tag="accuracy_fakes",
        description="Accuracy on generated images, attacked like the real ones.",
    ),
)


def signs_of_collapse(metrics: dict, total_steps: int, num_classes: int) -> list[str]:
    """See `Stage`: a discriminator that is never wrong, fakes that are all alike or not of their class."""
    signs = []
    if metrics["step"] < total_steps / 20:  # nobody knows anything yet
        return signs
    if min(metrics["real_accuracy"], metrics["fake_accuracy"]) > _SATURATED:
        signs.append("the discriminator detects nearly all fakes: the generator gets little to learn from")
    chance = 1 / num_classes
    # Where neither knows the classes, it is early. One that tells them of real images, but not of fakes, matters.
    if metrics["class_accuracy"] > 3 * chance and metrics["generator_class_accuracy"] < 1.2 * chance:
        signs.append("the classes of fakes are at chance: the generator ignores its labels")
    if metrics.get("diversity", 1.0) < _ALIKE:
        signs.append("the generated images of a class are nearly the same for every noise vector (mode collapse)")
    return signs


def signs_of_overfitting(metrics: dict, best: float, num_classes: int) -> list[str]:
    """Returns a sentence where the classifier withstands the one step of its training, and no other attack any more.

    (Wong et al., ICLR 2020: catastrophic over-fitting.)

    Args:
        metrics: an entry, of a validation by an attack of several steps and by that of the training.
        best: the highest validation accuracy so far.
        num_classes: number of classes.
    """
    one_step = metrics.get("validation_one_step_accuracy")
    if one_step is None or best < 1.5 / num_classes:  # it has not learnt anything yet
        return []
    accuracy = metrics["validation_accuracy"]
    if accuracy >= _COLLAPSED * best or one_step < best:
        return []
    return [
        f"catastrophic over-fitting: {one_step:.0%} of the validation images withstand the one step of the training's "
        f"attack, {accuracy:.0%} that of the validation, and {best:.0%} did at best. The best classifier is kept; "
        f"train with more noise (NFGSM.noise), a smaller epsilon, or an attack of several steps"
    ]
