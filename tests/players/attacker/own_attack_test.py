"""Attacks that users bring, and gradients of stand-ins: with both, a defence by JPEG compression falls."""

import pathlib
import re

import gin
import numpy as np
import pytest
import tensorflow as tf

from robgan_tf.data.datasets import Examples
from robgan_tf.keras2 import keras
from robgan_tf.players.attacker.attacked_classifier import AttackedClassifier
from robgan_tf.players.attacker.backward_pass import BackwardPass
from robgan_tf.players.attacker.inputs import has_gradient
from robgan_tf.players.attacker.own_attack import OwnAttack
from robgan_tf.players.attacker.pgd import PGD
from robgan_tf.players.attacker.threat_model import L2, LInf

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs" / "evaluation.md"
SIDE, CLASSES, COUNT = 16, 3, 40
# A smooth pattern for each class, which a compression leaves as it is.
_X, _Y = np.meshgrid(np.linspace(0, np.pi, SIDE), np.linspace(0, np.pi, SIDE))
WEIGHT = np.stack([np.cos(_X), np.cos(_Y), np.cos(_X) * np.cos(_Y)], axis=-1).reshape(-1, CLASSES).astype(np.float32)


def network(images):
    return tf.reshape(images, [-1, SIDE * SIDE]) @ WEIGHT


@pytest.fixture(scope="module")
def example_of_the_docs():
    """What the page defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = {}
    exec(code, names)
    return names


@pytest.fixture(scope="module")
def examples():
    pixels = np.random.default_rng(0).integers(40, 216, [COUNT, SIDE, SIDE, 1])
    smooth = 0.5 * (pixels + np.roll(pixels, 1, 1)).astype(np.uint8)
    images = smooth.astype(np.uint8)
    return Examples(images, np.argmax(network((images / 127.5 - 1).astype(np.float32)), axis=-1).astype(np.int32))


def pgd(ball):
    return PGD(ball, 20, relative_step_size=0.2)


def test_the_example_of_the_docs_breaks_a_defence_by_compression_where_plain_pgd_fails(example_of_the_docs, examples):
    compress, approximated = example_of_the_docs["compress"], example_of_the_docs["approximated"]
    ball = LInf(0.1)

    def defended(images):
        return network(compress(images))

    right = AttackedClassifier(defended, None, COUNT)(examples)
    assert right.mean() > 0.85 and not has_gradient(defended, examples)
    kept = examples.select(np.flatnonzero(right))
    # A gradient of zeros, such as a defence may show, moves nothing.
    shown = BackwardPass(defended, lambda images: 0.0 * network(images))
    assert AttackedClassifier(shown, pgd(ball), COUNT)(kept).mean() == 1

    adapted = OwnAttack(approximated(network), ball)
    broken = AttackedClassifier(defended, adapted, COUNT)
    bare = AttackedClassifier(network, pgd(ball), COUNT)(kept).mean()
    assert broken(kept).mean() <= bare + 0.1 < 0.5 and not broken.invalid


def test_forward_it_is_the_function_and_backward_its_stand_in():
    images = tf.constant([[0.3, 1.6], [-0.7, 2.4]])
    for stand_in, expected in ((None, 1.0), (lambda x: 3.0 * x, 3.0)):
        rounded = BackwardPass(tf.round) if stand_in is None else BackwardPass(tf.round, stand_in)
        for call in (rounded, tf.function(rounded)):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = call(images)
            np.testing.assert_array_equal(outputs, tf.round(images))
            np.testing.assert_array_equal(tape.gradient(outputs, images), np.full([2, 2], expected))


def test_a_layer_can_be_the_function_and_another_the_stand_in():
    layer, other = keras.layers.Dense(2, use_bias=False), keras.layers.Dense(2, use_bias=False)
    images = tf.ones([3, 4])
    layer(images), other(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = tf.function(BackwardPass(layer, other))(images)
    np.testing.assert_allclose(outputs, layer(images))
    np.testing.assert_allclose(tape.gradient(outputs, images), np.tile(other.kernel.numpy().sum(1), [3, 1]), rtol=1e-6)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"the function gives \(2, 1\), its surrogate \(2, 3\)"):
        BackwardPass(lambda x: x[:, :1])(tf.zeros([2, 3]))


@gin.register(module="tests")
def darker(logits, images, labels, threat_model):
    return threat_model.project(images - threat_model.epsilon, images)


def too_far(logits, images, labels, threat_model):
    return -images


@pytest.mark.parametrize("eager", [False, True])
def test_what_is_out_of_the_ball_is_a_failure_of_the_attack(examples, eager):
    attacked = AttackedClassifier(network, OwnAttack(too_far, LInf(0.1), eager=eager), 16)
    assert attacked(examples).all() and attacked.invalid == COUNT


@pytest.mark.parametrize("eager", [False, True])
def test_its_images_are_judged_at_the_epsilon_of_the_evaluation(examples, eager):
    attacked = AttackedClassifier(network, OwnAttack(darker, LInf(0.1), eager=eager), 16)
    for batch in attacked.batches(examples, 0.25):
        assert batch.valid.all() and np.abs(batch.adversarial - batch.images).max() > 0.24


def test_numpy_alone_is_enough_and_each_run_has_a_seed(examples):
    seeds = []

    def random(logits, images, labels, threat_model, seed):
        seeds.append(tuple(seed.numpy()))
        noise = np.random.default_rng(seed.numpy().astype(np.uint32)).normal(size=images.shape)
        assert logits(images).shape == [len(images), CLASSES] and labels.shape == [len(images)]
        return images.numpy() + threat_model.epsilon * noise / np.linalg.norm(noise.reshape(len(noise), -1))

    attacked = AttackedClassifier(network, OwnAttack(random, L2(1e-6), restarts=3, eager=True), COUNT)
    attacked(examples)
    assert len(set(seeds)) == 3 and not attacked.invalid


def test_gin_binds_one():
    gin.parse_config("""
        OwnAttack.function = @darker
        OwnAttack.threat_model = @LInf()
        LInf.epsilon = 0.5
    """)
    attack = gin.get_configurable(OwnAttack)()
    assert attack.name == "darker" and attack.describe()["function"].endswith("own_attack_test.darker")
    assert attack.describe()["norm"] == "linf"


@pytest.mark.parametrize("function", [5, lambda logits, images: images, lambda a, b, c, d, e: a])
def test_what_is_no_attack_is_refused(function):
    with pytest.raises(ValueError, match=r"must be a function of \(logits, images, labels, threat_model\)"):
        OwnAttack(function, LInf(0.1))


def test_an_image_too_few_is_refused(examples):
    attack = OwnAttack(lambda logits, images, labels, threat_model: images[1:], LInf(0.1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must return an image for each"):
        AttackedClassifier(network, attack, 16)(examples)
    flat = OwnAttack(lambda logits, images, labels, threat_model: tf.reshape(images, [-1, 4]), LInf(0.1))
    with pytest.raises(ValueError, match="must return images of shape"):
        AttackedClassifier(network, flat, 16)(examples)
