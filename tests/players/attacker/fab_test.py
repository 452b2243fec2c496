"""FAB and its projection, against SciPy and closed forms."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.fab import FAB
from robgan_tf.players.attacker.hyperplane import to_hyperplane
from robgan_tf.players.attacker.threat_model import L1, L2, LInf

every_norm = pytest.mark.parametrize("norm", [LInf, L2, L1])
SIZE = 6


def shortest(norm, image, weight, height):
    """The smallest norm of d with <w, d> = -height and x + d in range: a linear program, or SLSQP for l2."""
    if norm is L2:
        solved = scipy.optimize.minimize(
            lambda d: d @ d,
            -height * weight / (weight @ weight),
            jac=lambda d: 2 * d,
            bounds=list(zip(-1 - image, 1 - image)),
            constraints={"type": "eq", "fun": lambda d: weight @ d + height, "jac": lambda d: weight},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        return np.sqrt(solved.fun) if solved.success else None
    # d = p - n; l1: the sum of all, l-inf: a bound t of all, the last variable.
    cost = np.ones(2 * SIZE + 1) if norm is L1 else np.eye(2 * SIZE + 1)[-1]
    cost[-1] = float(norm is LInf)
    bounded = np.hstack([np.eye(2 * SIZE), -np.ones([2 * SIZE, 1])]) if norm is LInf else None
    solved = scipy.optimize.linprog(
        cost,
        A_ub=bounded,
        b_ub=None if bounded is None else np.zeros(2 * SIZE),
        A_eq=[np.concatenate([weight, -weight, [0]])],
        b_eq=[-height],
        bounds=[(0, 1 - x) for x in image] + [(0, 1 + x) for x in image] + [(0, None)],
    )
    return solved.fun if solved.status == 0 else None


@every_norm
def test_projection_on_a_hyperplane_is_as_short_as_a_general_solvers(norm):
    generator = np.random.default_rng(0)
    images = np.clip(generator.uniform(-1.3, 1.3, [40, SIZE]), -1, 1)
    weights = generator.normal(size=[40, SIZE]) * (generator.uniform(size=[40, SIZE]) < 0.8)
    weights[:, 0] += 0.1
    heights = generator.normal(scale=2, size=40)
    shaped = [tf.constant(array.reshape(40, 1, SIZE, 1), tf.float32) for array in (images, weights)]
    found = to_hyperplane(norm(1.0), *shaped, tf.constant(heights, tf.float32))
    sizes, found = norm(1.0).size(found).numpy(), found.numpy().reshape(40, SIZE)
    assert (np.abs(images + found) <= 1 + 1e-6).all()
    unreachable = 0
    for row in range(40):
        exact = shortest(norm, images[row], weights[row], heights[row])
        missed = weights[row] @ found[row] + heights[row]
        if exact is None:
            # The nearest in range: everything at its end.
            least = np.where(np.sign(heights[row]) * weights[row] > 0, -1 - images[row], 1 - images[row])
            np.testing.assert_allclose(found[row], np.where(weights[row] == 0, 0, least), atol=1e-5)
            unreachable += 1
        else:
            assert abs(missed) < 1e-4 and sizes[row] == pytest.approx(exact, abs=1e-4)  # the solvers' and float32
    assert 2 <= unreachable <= 20


WEIGHT = np.random.default_rng(0).normal(size=[84, 5]).astype(np.float32)


def linear(images):
    return tf.reshape(images, [-1, 84]) @ WEIGHT


@pytest.fixture(scope="module")
def examples():
    pixels = np.random.default_rng(1).integers(60, 196, [120, 6, 7, 2]).astype(np.uint8)
    return Examples(pixels, np.argmax(linear((pixels / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


@pytest.mark.parametrize("norm, epsilon, dual", [(LInf, 0.05, 1), (L2, 0.4, 2), (L1, 0.45, np.inf)])
def test_fab_finds_the_worst_case_of_a_linear_classifier(examples, norm, epsilon, dual):
    # Every pixel has room for more than epsilon. Against class k the margin falls by epsilon times the dual norm.
    images = (examples.images / 127.5 - 1).reshape(120, 84)
    logits, exact = images @ WEIGHT, np.ones(120, bool)
    for row, label in enumerate(examples.labels):
        fall = epsilon * np.linalg.norm(WEIGHT - WEIGHT[:, [label]], ord=dual, axis=0)
        fall = np.delete(logits[row, label] - logits[row] - fall, label)
        exact[row] = fall.min() > 0
    assert 0.02 < exact.mean() < 0.95
    # 5 % beyond the hyperplane it comes back to within 1 % of it.
    found = AttackedClassifier(linear, FAB(norm(epsilon), 60, targets=4), 64)(examples)
    assert not (exact & ~found).any() and (found & ~exact).sum() <= 2


def test_fab_returns_to_the_ball_what_it_found_outside(examples):
    attacked = AttackedClassifier(linear, FAB(LInf(0.001), 5, targets=4), 64)
    for batch in attacked.batches(examples):
        assert batch.valid.all()


def test_further_runs_start_at_random(examples):
    attack = FAB(LInf(0.05), 5, targets=2, restarts=2)
    images, seed = tf.zeros([3, 4, 4, 1]), tf.constant([1, 2])
    np.testing.assert_array_equal(attack.start_of_run(images, seed, 1), images)
    start = attack.start_of_run(images, seed, 2).numpy()
    assert 0.02 < np.abs(start).max() <= 0.025 and attack.runs == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "FAB.steps must be a whole number >= 1"),
        ({"targets": 0}, "FAB.targets must be a whole number >= 1"),
        ({"alpha_max": 1.5}, "FAB.alpha_max must be a number"),
        ({"eta": 0.9}, "FAB.eta must be a number"),
        ({"beta": -1}, "FAB.beta must be a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FAB(LInf(0.1), **options)
