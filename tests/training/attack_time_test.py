"""How long the attacks of a step take."""

import tensorflow as tf

from robgan_tf.training.attack_time import AttackTimer


class Attacked:
    """What the timer needs of a stage."""

    attacked_at_once, micro_batches = 4, 3

    def __init__(self):
        self.traced = []

    def attack(self, images, labels, seed):
        self.traced.append((images.shape, labels.shape))
        # Some arithmetic, that takes a time.
        return tf.linalg.matmul(tf.reshape(images, [-1, 32]), tf.random.stateless_normal([32, 4096], seed))


def test_the_attack_is_compiled_once_and_timed_for_all_micro_batches():
    stage = Attacked()
    timer = AttackTimer(stage, (32, 32, 3), num_classes=10)
    seconds = [timer.measure(step)["attack_seconds"] for step in (1, 2)]
    assert stage.traced == [((4, 32, 32, 3), (4,))]
    assert all(0 < one < 10 for one in seconds)


def test_it_works_on_every_replica(two_replicas):
    with two_replicas.scope():
        assert AttackTimer(Attacked(), (32, 32, 3), num_classes=10).measure(1)["attack_seconds"] > 0
