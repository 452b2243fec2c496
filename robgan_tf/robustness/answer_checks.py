"""Checks of a classifier's answers by themselves: the same each time, of each image alone, not learnt by heart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.threat_model import PIXEL_RANGE
from robgan_tf.robustness.verdicts import RARE, Check, counted

# Largest difference of two answers that should be the same, as a share of the largest logit: what sums in another order
# do to float32, and what other algorithms for another size of batch do.
_REPEAT, _BATCH = 1e-5, 1e-3
# Share of the images that a move by a pixel may break, times the image's side: of 8 px digits it breaks a quarter.
_MOVED, _MOST_MOVED = 4.0, 0.5
# Accuracy on test images may be above that on training images by so much, and by what chance does to both.
_ABOVE_TRAINING = 0.05


def check_answers(
    clean: AttackedClassifier, noises: Sequence[AttackedClassifier], examples: Examples, is_random: bool
) -> Iterator[Check]:
    """Yields what answers tell: not constant, the same each time, of each image alone, no probabilities.

    Args:
        clean: the classifier without an attack.
        noises: the same behind random noise of less than an 8-bit level, and of the whole ball.
        examples: clean images.
        is_random: whether the classifier is meant to be random, and is attacked as such.
    """
    first, second = _answers(clean, examples), _answers(clean, examples)
    differs = _differences(first, first[:1]) > 0
    yield counted(
        "Answers differ between images",
        0 if differs.any() else len(first),
        len(first),
        RARE,
        f"{1 + differs.sum()} of {len(first)} images have an answer of their own",
        "the classifier is constant: it gives all images the same logits, and its accuracy is the share of its class",
    )
    if not differs.any():
        return
    random = "the classifier is random, so attack and measurement look at different ones"
    for name, one, other in (
        ("Two clean passes are identical", first, second),
        *(
            (f"Two passes {where} are identical", *(_answers(noise, examples) for _ in range(2)))
            for where, noise in zip(("between the 8-bit levels", "within the ball"), noises)
        ),
    ):
        found = np.sum(_differences(one, other) > _REPEAT)
        yield counted(
            name,
            0 if is_random else found,
            len(first),
            0.0,
            f"{found} of {len(first)} images have other logits in a second pass"
            + (", as is meant for this evaluation's attacks" if is_random and found else ""),
            f"{random}; where that is meant, evaluate it with gin/evaluation/rand.gin",
        )
    count = len(examples) // 2 or 1
    fewer = _answers(clean, examples.select(np.arange(len(examples))[::-1][:count]))[::-1]
    found = np.sum(_differences(fewer, first[-count:]) > _BATCH)
    yield counted(
        "Answers do not depend on the batch",
        0 if is_random else found,
        count,
        0.0,
        f"{found} of {count} images have other logits within another batch",
        "the classifier is random, or not in inference mode (training=False)",
    )
    # The margins are those of AutoAttack's flag.
    finite = np.isfinite(first).all()
    probabilities = finite and first.min() > -1e-5 and first.max() < 1 + 1e-5
    probabilities = probabilities and np.allclose(first.sum(axis=-1), 1, atol=1e-4)
    yield Check(
        "Answers are logits, not probabilities",
        "fail" if probabilities else "pass",
        float(probabilities),
        "all answers are in [0, 1] and sum to 1: remove the softmax, its gradients vanish"
        if probabilities
        else f"answers range from {first.min():.3g} to {first.max():.3g}",
    )
    if not is_random:
        inside = _answers(noises[1], examples)
        same = np.sum((inside == first).all(axis=-1))
        yield counted(
            "Answers change within the ball",
            same,
            len(first),
            RARE,
            f"{same} of {len(first)} images have exactly the same logits at a random point of the ball",
            "logits that stand still hide from attacks where the classifier is weak",
        )


def check_moved(clean: AttackedClassifier, examples: Examples) -> Check:
    """Returns whether the images are still classified when all of them are moved by a pixel, or mirrored.

    Of the four moves and the mirror the one is taken that breaks fewest images: digits can't be mirrored, and some
    images are cut by some moves.
    """
    right = clean(examples)
    moves = {
        "moved by a pixel to the right": lambda images: _shifted(images, 2, 1),
        "moved by a pixel to the left": lambda images: _shifted(images, 2, -1),
        "moved down by a pixel": lambda images: _shifted(images, 1, 1),
        "moved up by a pixel": lambda images: _shifted(images, 1, -1),
        "mirrored": lambda images: images[:, :, ::-1],
    }
    lost = {
        name: np.sum(right)
        - np.sum(clean(dataclasses.replace(examples, images=np.ascontiguousarray(move(examples.images)))))
        for name, move in moves.items()
    }
    least = min(lost, key=lost.get)
    return counted(
        "Moved images are classified, too",
        max(lost[least], 0),
        len(examples),
        min(_MOVED / min(examples.image_shape[:2]), _MOST_MOVED),
        f"{max(lost[least], 0)} fewer of {len(examples)} images are right when {least}, the best of {len(moves)} ways",
        "the classifier knows these very images; on others its accuracy is lower",
    )


def _shifted(images, axis, by):
    """The images moved, with what was at the border twice there."""
    places = np.clip(np.arange(images.shape[axis]) - by, 0, images.shape[axis] - 1)
    return np.take(images, places, axis=axis)


def check_training_images(test: dict, train: dict, epsilon: float) -> Check:
    """Returns whether accuracy on test images is far above that on training images, clean or attacked.

    Args:
        test: the block of the report.
        train: the same of the training images.
        epsilon: radius of the attacks.
    """
    gaps = []
    for words, radius in (("clean", 0.0), ("under attack", epsilon)):
        here, there = (next(p for p in block["curve"] if p["epsilon"] == radius) for block in (test, train))
        gap = here["accuracy"] - there["accuracy"]
        # Newcombe's interval of a difference of two shares, from Wilson's of each.
        spread = math.hypot(here["accuracy"] - here["interval"][0], there["interval"][1] - there["accuracy"])
        gaps.append((gap - spread, gap, f"{100 * gap:+.1f} points {words}"))
    lowest, gap, _ = max(gaps)
    status = "fail" if lowest > _ABOVE_TRAINING else "warn" if gap > _ABOVE_TRAINING and lowest > 0 else "pass"
    message = f"accuracy on test images minus that on training images is {', '.join(words for *_, words in gaps)}"
    if status != "pass":
        message += ": the classifier knows the test images, or the training images have wrong labels"
    return Check("Test accuracy is not above training accuracy", status, gap, message, test["examples"])


def check_arrays(attacked: Sequence[AttackedClassifier]) -> Check:
    """Returns whether all images that attacks have made were finite, in range and in their ball."""
    made, invalid = (sum(getattr(one, name) for one in attacked) for name in ("made", "invalid"))
    return counted(
        "Adversarial images are in ball and range",
        invalid,
        made,
        0.0,
        f"{invalid} of {made} adversarial images are outside of the ball or of {list(PIXEL_RANGE)}, or not finite",
        "they were counted as failed attacks; the attack or its projection is broken",
    )


def off_grid(ball, image_shape: Sequence[int]) -> float:
    """Returns the radius within which no pixel moves further than half of an 8-bit level, 1/255, on average."""
    return ball.norm_of_ones(math.prod(image_shape)) / 255


def _answers(classifier, examples):
    return np.concatenate([batch.logits for batch in classifier.batches(examples)])


def _differences(these, others):
    """Largest difference of two answers [N, K] for each image, as a share of the largest logit of all, [N]."""
    finite = these[np.isfinite(these)]
    scale = max(np.abs(finite).max() if finite.size else 0.0, 1e-6)
    with np.errstate(invalid="ignore"):
        differences = np.where(these == others, 0.0, np.abs(these - others))
    return np.nan_to_num(differences, nan=np.inf).max(axis=-1) / scale
