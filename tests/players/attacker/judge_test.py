from typing import NamedTuple

import numpy as np
import tensorflow as tf

from robgan_tf.players.attacker.judge import Judge, Score, repeat_on_standing


class Counted(NamedTuple):
    limit: tf.Tensor
    value: tf.Tensor
    calls: tf.Tensor


def run(columns, count=100):
    sizes = []

    def score(values, *limits):
        tf.py_function(lambda values: sizes.append(len(values)), [values], [])
        return Score(values, values >= (limits[0] if limits else 1000.0))

    def step(index, state, judge):
        judge(state.value)
        return Counted(state.limit, state.value + 1.0, state.calls + 1)

    @tf.function
    def repeat(limits):
        state = Counted(limits, tf.zeros([16]), tf.zeros([16], tf.int32))
        judge = Judge(score, [limits] if columns else None)
        return repeat_on_standing(step, state, judge, count, lambda state: state.value < state.limit)

    return repeat(tf.range(1.0, 17.0)), sizes


def test_what_has_fallen_is_no_longer_scored_and_keeps_its_state():
    state, sizes = run(columns=True)
    assert sizes[0] == 16 and sizes == sorted(sizes, reverse=True) and sizes[-1] == 1
    assert len(sizes) == 16  # the last one falls at 16, and nothing is done after it
    # An eighth of 16 may go on while the others are at work.
    beyond = state.value.numpy() - np.arange(1, 17)
    assert (beyond >= 0).all() and (beyond <= 2).all()
    np.testing.assert_array_equal(state.calls, state.value)


def test_a_loss_of_the_whole_batch_scores_all_until_the_last_has_fallen():
    state, sizes = run(columns=False)
    assert sizes == [16] * 16 and (state.value.numpy() == 16).all()


def test_it_ends_after_the_count():
    state, sizes = run(columns=True, count=3)
    assert len(sizes) == 3 and state.value.numpy().max() == 3
