"""What all pipelines of tf.data have in common here."""

from __future__ import annotations

import os

import tensorflow as tf


def cores() -> int:
    """Returns the number of processors that this process may use.

    It is how many images are decoded at a time. Whole batches, of which as many wait in memory as are made at a time,
    are left to `tf.data.AUTOTUNE`: with `untuned`, as many as there are cores, at most 16.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def untuned() -> tf.data.Options:
    """Returns options by which tf.data does not tune a pipeline as it runs.

    Its tuner sleeps between two rounds, twice as long after each and up to a minute. An iterator that ends waits for
    it, and where the call that wakes it up comes a moment too early, which on busy processors is often, it sleeps on:
    for as long as the iterator had lived, after each stage, validation and file (`Model::OptimizeLoop` in
    tensorflow/core/framework/model.cc).
    """
    chosen = tf.data.Options()
    chosen.autotune.enabled = False
    return chosen


def options() -> tf.data.Options:
    """Returns options by which elements come in their order, and nothing is tuned."""
    chosen = untuned()
    # What is ready first waits for its turn, or a batch would not be a function of (seed, step).
    chosen.deterministic = True
    return chosen
