"""How many real and generated images a batch holds."""

import pytest

from robgan_tf.training.batch_composition import Composition, compose


def test_without_a_share_generated_images_come_on_top_with_lambda():
    assert compose(128, None, None, False, 1, 1) == Composition(128, 0, 0.0)
    assert compose(128, None, None, True, 1, 1) == Composition(128, 128, 0.5)
    assert compose(128, 0.8, None, True, 2, 4) == Composition(128, 128, 0.8)


@pytest.mark.parametrize(("share", "real", "generated"), [(0.0, 128, 0), (0.25, 96, 32), (0.7, 38, 90), (1.0, 0, 128)])
def test_with_a_share_the_batch_stays_as_large(share, real, generated):
    assert compose(128, None, share, True, 1, 1) == Composition(real, generated, 1.0)


def test_a_share_of_nothing_needs_no_source():
    assert compose(128, None, 0.0, False, 1, 1) == Composition(128, 0, 1.0)


def test_contradictions_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match="generated_share = 0.7 and there are no generated images: set Experiment.gen"):
        compose(128, None, 0.7, False, 1, 1)
    with pytest.raises(ValueError, match=r"fake_weight \(lambda\) is 0.5: set FineTuning.fake_weight = None"):
        compose(128, 0.5, 0.7, True, 1, 1)
    with pytest.raises(ValueError, match="90 generated and 38 real images of a batch of 128, which 4 replicas in"):
        compose(128, None, 0.7, True, 4, 2)
    with pytest.raises(ValueError, match="take a share such as 0.6875"):
        compose(128, None, 0.7, True, 4, 2)
    assert compose(128, None, 0.6875, True, 4, 2) == Composition(40, 88, 1.0)


@pytest.mark.parametrize(
    ("whole", "share", "replicas", "part"),
    [
        (Composition(128, 128, 0.5), 0.25, 1, (32, 32)),
        (Composition(152, 360, 1.0), 1 / 32, 1, (4, 12)),  # 4.75 and 11.25, in pairs
        (Composition(152, 360, 1.0), 1 / 32, 2, (4, 12)),
        (Composition(152, 360, 1.0), 1 / 512, 4, (8, 8)),  # two of each kind on each replica
        (Composition(128, 0, 0.0), 1 / 64, 1, (2, 0)),
    ],
)
def test_a_part_has_pairs_of_all_kinds(whole, share, replicas, part):
    assert whole.part(share, replicas) == Composition(*part, whole.weight)
