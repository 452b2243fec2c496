"""The one convention for references in gin: a parameter of type Callable takes @X, any other what @X() makes."""

import inspect
import pathlib
import re

import gin
import pytest

from robgan_tf.experiment import parts  # noqa: F401  (so that gin knows all parts)
from robgan_tf.experiment.build import Configuration  # noqa: F401

GIN = pathlib.Path(__file__).resolve().parents[1] / "gin"
BINDING = re.compile(r"^([\w./]+)\s*=\s*(.*)$", re.MULTILINE)
REFERENCE = re.compile(r"@([\w./]+)(\(\))?")


def is_called(owner, parameter):
    """Whether the parameter of a configurable takes something to call, and not what the call makes."""
    function = inspect.unwrap(gin.get_configurable(owner))
    function = function.__init__ if inspect.isclass(function) else function
    annotation = str(inspect.signature(function).parameters[parameter].annotation)
    assert annotation != str(inspect.Parameter.empty), f"{owner}.{parameter} has no type"
    return "Callable" in annotation or annotation == "Schedule"  # which may be a number, too


def wrong_references(text):
    """Lines of a gin file whose references do not keep to the convention."""
    found = []
    for name, value in BINDING.findall(text):
        for reference, parentheses in REFERENCE.findall(value):
            owner, _, parameter = name.rpartition(".")
            # A macro stands for an object: all that use one have the type of it.
            called = bool(owner) and is_called(owner.rpartition("/")[2], parameter)
            if called == bool(parentheses):
                found.append(f"{name} = {value} (@{reference}{'' if parentheses else '()'})")
    return found


@pytest.mark.parametrize("path", sorted(GIN.rglob("*.gin")), ids=lambda path: path.stem)
def test_a_reference_has_parentheses_unless_the_parameter_is_called(path):
    assert wrong_references(path.read_text()) == []


def test_a_wrong_reference_is_found():
    assert wrong_references("Experiment.generator = @Generator()") == [
        "Experiment.generator = @Generator() (@Generator)"
    ]
    assert wrong_references("FineTuning.attacker = @finetuning/Attacker") == [
        "FineTuning.attacker = @finetuning/Attacker (@finetuning/Attacker())"
    ]
    assert wrong_references("evaluation_ball = @LInf") == ["evaluation_ball = @LInf (@LInf())"]
    assert wrong_references("CoTraining.optimizer = @cotraining/Adam") == []
