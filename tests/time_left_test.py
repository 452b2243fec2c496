"""Durations in words, and lines on how far some work is."""

import time

import pytest

from robgan_tf.time_left import TimeLeft, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (426, "7 min 6 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (7559, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines_come_at_their_interval_with_the_rate_since_the_one_before(clock):
    work = TimeLeft(200, "images", every=10, done=20)
    clock[0] += 9
    assert work.line(40) is None
    clock[0] += 1
    assert work.line(40) == "40 of 200 images (20 %), 2 images/s, 1 min 20 s left"
    clock[0] += 10
    assert work.line(140) == "140 of 200 images (70 %), 10 images/s, 6 s left"
    clock[0] += 1
    assert work.line(200) is None
    assert work.line(200, last=True) == "200 of 200 images (100 %), 60 images/s, 0 s left"


def test_without_a_total_there_is_no_time_left_and_without_progress_neither(clock):
    work = TimeLeft(None, "images")
    clock[0] += 10
    assert work.line(50) == "50 images, 5 images/s"
    assert TimeLeft(100, "images").left(50, 0.0) == ""
