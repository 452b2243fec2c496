"""Wilson's interval against its formula."""

import math

import pytest

from robgan_tf.robustness.intervals import wilson


@pytest.mark.parametrize(("found", "examples"), [(0, 20), (7, 20), (20, 20), (271, 360)])
def test_the_bounds_solve_wilsons_equation(found, examples):
    """Each bound p is where the share is 1.96 standard errors of p away from p; but for 0 and 1 themselves."""
    share, z = found / examples, 1.959963984540054
    low, high = wilson(found, examples)
    for bound in (low, high):
        assert bound in (0, 1) or abs(share - bound) == pytest.approx(
            z * math.sqrt(bound * (1 - bound) / examples), rel=1e-9
        )
    assert 0 <= low <= share <= high <= 1 and low < high
