"""What a check says, and when it fails: exact statistics of how many images have the fault that it looks for.

A check counts `found` faults among n images. Where honest classifiers have the fault on a share `tolerated` of all
images at most, it fails if so many would be found by chance with a probability below 5 % (exact binomial test), and
warns below 25 %; with nothing tolerated it fails at the first one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# The error of the first kind of each test, and what is left to 100 % of intervals and power; and that of a warning.
_ERROR, _WARN_ERROR = 0.05, 0.25
# Share of all images on which an attack may by accident find what others have not, or an answer be at float32's end.
RARE = 0.005


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what should be so.
        status: "pass", "warn" or "fail".
        value: the figure it was judged by, the share of images with the fault; None where there is none.
        message: figure and meaning in a sentence.
        examples: images that were looked at.
        found: how many of them had the fault.
        interval: 95 % interval of the share of all images that have it (Clopper & Pearson).
        detectable: share of all images that a fault must touch for the check to fail with a probability of 95 %; 1
            where so few images can't tell.
    """

    name: str
    status: str
    value: float | None
    message: str
    examples: int | None = None
    found: int | None = None
    interval: list[float] | None = None
    detectable: float | None = None


def counted(name: str, found: int, examples: int, tolerated: float, message: str, meaning: str) -> Check:
    """Returns a check by the number of images that were found.

    Args:
        name: of the check.
        found: images with the fault.
        examples: images that were looked at.
        tolerated: share of all images that may have it, in [0, 1).
        message: the figure in words.
        meaning: what it means unless the check passes.
    """
    from scipy.stats import beta, binomtest  # here: slow to import, and a training begins without it

    found, examples = int(found), int(examples)
    limit, doubtful = (fewest_to_fail(examples, tolerated, error) for error in (_ERROR, _WARN_ERROR))
    status = "fail" if found >= limit else "warn" if found >= doubtful else "pass"
    interval = binomtest(found, examples).proportion_ci(method="exact") if examples else (0.0, 1.0)
    detectable = beta.ppf(1 - _ERROR, limit, examples - limit + 1) if limit <= examples else 1.0
    return Check(
        name,
        status,
        found / max(examples, 1),
        message if status == "pass" else f"{message}: {meaning}",
        examples,
        found,
        [float(bound) for bound in interval],
        float(detectable),
    )


def fewest_to_fail(examples: int, tolerated: float, error: float = _ERROR) -> int:
    """Returns the smallest k with P(X >= k) < `error` for binomial X; `examples` + 1 if there is none."""
    if not tolerated:
        return 1
    counts = np.arange(1, examples + 2)
    return int(counts[np.argmax(_at_least(counts, examples, tolerated) < error)])


def paired(name: str, these: int, others: int, examples: int, message: str, meaning: str, tests: int = 1) -> Check:
    """Returns a check of two outcomes for the same images that should be about as frequent (exact McNemar test).

    Args:
        name: of the check.
        these: images with the first outcome alone: the fault, if it has more.
        others: images with the second alone.
        examples: images that were looked at.
        message: the figure in words.
        meaning: what it means where the first has more.
        tests: how many such pairs were compared, of which this is the worst.
    """
    these, others, examples = int(these), int(others), int(examples)
    together = these + others
    fewer = together == 0 or _at_least(these, together, 0.5) * tests >= _ERROR
    status = "pass" if fewer else "fail"
    check = counted(name, these, examples, RARE, message, meaning)
    return dataclasses.replace(check, status=status, message=message if fewer else f"{message}: {meaning}")


def _at_least(counts, examples: int, share: float):
    """Probability that a binomial X is `counts` or more."""
    from scipy.stats import binom  # here: slow to import, and a training begins without it

    return binom.sf(counts - 1, examples, share)
