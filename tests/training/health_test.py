"""Signs of catastrophic over-fitting in the metrics of a validation."""

import pytest
import tensorflow as tf
from small_stages import make_finetuning

from robgan_tf.training.health import signs_of_overfitting


def entry(accuracy, one_step):
    return {"validation_accuracy": accuracy, "validation_one_step_accuracy": one_step}


def test_a_collapse_under_several_steps_alone_is_said_with_what_to_do():
    (sign,) = signs_of_overfitting(entry(0.02, 0.81), best=0.42, num_classes=10)
    assert "81% of the validation images withstand the one step of the training's attack, 2% that of" in sign
    assert "42% did at best" in sign and "NFGSM.noise" in sign


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        (entry(0.40, 0.45), 0.42),  # all is well
        (entry(0.02, 0.03), 0.42),  # broken altogether
        (entry(0.05, 0.30), 0.11),  # at chance: it has not begun
        ({"validation_accuracy": 0.02}, 0.42),  # an attack of several steps
        ({"loss": 1.0}, 0.42),  # no validation
    ],
)
def test_anything_else_is_none(metrics, best):
    assert signs_of_overfitting(metrics, best, num_classes=10) == []


def test_fine_tuning_looks_for_it_on_any_number_of_replicas(two_replicas):
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            stage = make_finetuning()
            stage.best_accuracy.assign(0.6)
        assert "catastrophic over-fitting" in stage.signs_of_collapse(entry(0.1, 0.9))[0]
