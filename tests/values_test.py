"""Types and ranges of parameters: one line that names binding, value and what is allowed."""

import gin
import numpy as np
import pytest

from robgan_tf.values import checked, either, maker, number, optional, several, switch, whole


@checked(width=whole(1, 8), rate=either(maker("@linear"), number(above=0)), decay=number(least=0, below=1), on=switch())
def network(width, rate=0.1, decay=0.5, on=True, sizes=(1,)):
    return width, rate, decay, on


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 0}, r"network.width must be a whole number within 1 .. 8, got 0\."),
        ({"width": 9}, "got 9"),
        ({"width": 2.0}, "got 2.0"),
        ({"width": "2"}, "got '2'"),
        ({"width": True}, "got True"),
        ({"width": None}, "got None"),
        (
            {"width": 1, "rate": 0},
            r"network.rate must be a reference such as @linear, without brackets, or a number > 0",
        ),
        ({"width": 1, "rate": float("nan")}, "got nan"),
        ({"width": 1, "decay": 1}, r"network.decay must be a number >= 0 and < 1, got 1\."),
        ({"width": 1, "decay": "a"}, "got 'a'"),
        ({"width": 1, "on": 1}, "network.on must be True or False, got 1"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        network(**arguments)
    assert "\n" not in str(caught.value)


def test_what_is_allowed_goes_through_and_numbers_of_numpy_do_too():
    assert network(np.int64(3), np.float32(0.5), 0, False) == (3, 0.5, 0, False)
    assert network(1, rate=len)[1] is len


def test_arguments_that_there_are_not_are_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'wdith'"):
        network(wdith=1)


@pytest.mark.parametrize(
    "kind, yes, no",
    [
        (optional(whole(0)), [None, 0], ["", -1]),
        (several(whole(1)), [(1,), [2, 3]], [(), 1, "12", (0,)]),
        (several(whole(1), least=0), [()], [None]),
        (number(), [-1e9, 0], [float("inf"), 1j]),
    ],
)
def test_kinds_allow_what_they_say(kind, yes, no):
    assert all(map(kind.allows, yes)) and not any(map(kind.allows, no))


def test_gin_sees_the_parameters_of_what_is_checked():
    @gin.configurable("a_checked_class")
    @checked(size=whole(1))
    class Checked:
        def __init__(self, size=1):
            self.size = size

    gin.parse_config("a_checked_class.size = 0")
    with pytest.raises(ValueError, match="Checked.size must be a whole number >= 1, got 0"):
        Checked()
    with pytest.raises(ValueError, match="doesn't have a parameter named 'sizes'"):
        gin.parse_config("a_checked_class.sizes = 1")
