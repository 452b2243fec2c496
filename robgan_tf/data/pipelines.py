"""What all pipelines of tf.data have in common here."""

from __future__ import annotations

import tensorflow as tf


def options() -> tf.data.Options:
    """Returns options by which elements come in their order, and tf.data does not tune the pipeline as it runs.

    Its tuner sleeps between two rounds, twice as long after each and up to a minute. An iterator that ends waits for
    it, and where the call that wakes it up comes a moment too early, which on busy processors is often, it sleeps on:
    for as long as the iterator had lived, after each stage, validation and file (`Model::OptimizeLoop` in
    tensorflow/core/framework/model.cc). Untuned, `tf.data.AUTOTUNE` is as many calls as there are cores, at most 16.
    """
    chosen = tf.data.Options()
    # What is ready first waits for its turn, or a batch would not be a function of (seed, step).
    chosen.deterministic = True
    chosen.autotune.enabled = False
    return chosen
