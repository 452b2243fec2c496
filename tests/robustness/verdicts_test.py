"""When checks fail: exact binomial limits, intervals and power, against sums of the binomial distribution."""

import math

import pytest

from robgan_tf.robustness.verdicts import RARE, counted, fewest_to_fail, paired


def at_least(k, n, p):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize("examples, tolerated", [(100, RARE), (200, RARE), (60, 0.03), (500, 0.25)])
def test_the_limit_is_the_first_count_that_is_unlikely_by_chance(examples, tolerated):
    limit = fewest_to_fail(examples, tolerated)
    assert at_least(limit, examples, tolerated) < 0.05 <= at_least(limit - 1, examples, tolerated)


@pytest.mark.parametrize("found, status", [(0, "pass"), (1, "pass"), (2, "warn"), (3, "fail"), (100, "fail")])
def test_three_of_a_hundred_fail_where_nothing_should_be_found(found, status):
    check = counted("name", found, 100, RARE, "so and so", "which means")
    assert check.status == status and check.message == "so and so" + ": which means" * (status != "pass")
    assert (check.found, check.examples, check.value) == (found, 100, found / 100)


@pytest.mark.parametrize("examples, tolerated", [(100, 0.0), (100, RARE), (300, 0.03)])
def test_a_fault_of_the_share_that_is_stated_is_noticed_with_95_percent(examples, tolerated):
    check = counted("name", 0, examples, tolerated, "", "")
    limit = fewest_to_fail(examples, tolerated)
    assert at_least(limit, examples, check.detectable) == pytest.approx(0.95)


def test_intervals_hold_what_is_likely_with_95_percent():
    low, high = counted("name", 3, 100, RARE, "", "").interval
    assert at_least(3, 100, low) == pytest.approx(0.025) and 1 - at_least(4, 100, high) == pytest.approx(0.025)


def test_with_nothing_tolerated_one_fails_and_without_images_nothing_can_be_said():
    assert counted("name", 1, 1000, 0.0, "", "").status == "fail"
    nothing = counted("name", 0, 0, RARE, "", "")
    assert (nothing.status, nothing.detectable, nothing.interval) == ("pass", 1.0, [0.0, 1.0])
    assert counted("name", 2, 2, 0.5, "", "").detectable == 1.0  # 2 of 2 have a chance of 1/4


@pytest.mark.parametrize("these, others, status", [(0, 0, "pass"), (5, 5, "pass"), (4, 0, "pass"), (5, 0, "fail")])
def test_of_two_outcomes_the_first_may_not_be_more_frequent(these, others, status):
    # 2**-4 = 6.25 % and 2**-5 = 3.1 %.
    assert paired("name", these, others, 100, "", "").status == status


def test_the_worst_of_several_pairs_needs_more():
    assert paired("name", 5, 0, 100, "", "", tests=2).status == "pass"
    assert paired("name", 6, 0, 100, "", "", tests=2).status == "fail"
