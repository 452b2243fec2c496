"""Types and ranges of the parameters that users set: each is said once, beside what it belongs to.

    @gin.configurable
    @checked(epochs=number(above=0), batch_size=whole(1))
    class CoTraining: ...

A value that is not allowed is a ValueError that names the binding, what is allowed, what was given and, where it is
plain what was meant, what to write.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import numbers
from typing import Callable

import gin


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a parameter may be.

    Attributes:
        words: says it in a message, after "must be".
        allows: tells whether a value is.
    """

    words: str
    allows: Callable[[object], bool]


def whole(least: int, most: int | None = None) -> Kind:
    """A whole number within [least, most]."""
    words = f"a whole number >= {least}" if most is None else f"a whole number within {least} .. {most}"

    def allows(value):
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return is_whole and value >= least and (most is None or value <= most)

    return Kind(words, allows)


def number(
    least: float | None = None, above: float | None = None, most: float | None = None, below: float | None = None
) -> Kind:
    """A finite number of which one lower and one upper limit may be given, with or without the limit itself."""
    limits = ((least, ">="), (above, ">"), (most, "<="), (below, "<"))
    words = " and ".join(f"{sign} {limit:g}" for limit, sign in limits if limit is not None)

    def allows(value):
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
            return False
        fits = (least is None or value >= least) and (above is None or value > above)
        return fits and (most is None or value <= most) and (below is None or value < below)

    return Kind(f"a number {words}".strip(), allows)


def switch() -> Kind:
    """True or False."""
    return Kind("True or False", lambda value: isinstance(value, bool))


def one_of(*names: str) -> Kind:
    """One of some texts."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def maker(example: str) -> Kind:
    """A function or class that the code calls, by reference and without brackets."""
    return Kind(f"a reference such as {example}, without brackets", callable)


def made(kind: type, example: str) -> Kind:
    """An object of a class, which a reference with brackets makes."""
    return Kind(f"a reference such as {example}, with brackets", lambda value: isinstance(value, kind))


def either(one: Kind, other: Kind) -> Kind:
    """What one of two kinds is."""
    return Kind(f"{one.words}, or {other.words}", lambda value: one.allows(value) or other.allows(value))


def optional(kind: Kind) -> Kind:
    """None, or what `kind` is."""
    return Kind(f"{kind.words}, or None", lambda value: value is None or kind.allows(value))


def several(kind: Kind, least: int = 1) -> Kind:
    """A list of at least `least` values, each of them what `kind` is."""

    def allows(value):
        return isinstance(value, (list, tuple)) and len(value) >= least and all(map(kind.allows, value))

    return Kind(f"a list in brackets, each entry {kind.words}", allows)


def check(binding: str, value, kind: Kind, hint: str = ""):
    """Raises a ValueError, in the name of `binding`, unless `value` is what `kind` says; `hint` says what to do."""
    if not kind.allows(value):
        raise ValueError(f"{binding} must be {kind.words}, got {value!r}{_hint(value, kind) or hint and f'; {hint}'}.")


def _hint(value, kind: Kind) -> str:
    """What to write instead, where it is the same value of another type."""
    try:
        meant = ast.literal_eval(value) if isinstance(value, str) else int(value)
    except (ValueError, TypeError, SyntaxError, OverflowError):
        return ""
    same = isinstance(value, str) or (isinstance(value, float) and meant == value)
    return f"; write {meant!r}" if same and kind.allows(meant) else ""


def checked(binding: str | None = None, /, **kinds: Kind):
    """Returns a decorator of a class or function: its arguments of these names have to be what their kinds say.

    Args:
        binding: the name that gin knows it by, for messages, where that is not its own.
        **kinds: what each of these parameters may be.
    """

    def decorate(target):
        function = target.__init__ if inspect.isclass(target) else target
        signature = inspect.signature(function)
        unknown = set(kinds) - set(signature.parameters)
        assert not unknown, f"{target.__name__} has no parameters {unknown}"

        @functools.wraps(function)
        def check_and_call(*args, **kwargs):
            try:
                given = signature.bind_partial(*args, **kwargs).arguments
            except TypeError:  # says it better itself
                return function(*args, **kwargs)
            # The class that is made, which may be a subclass.
            owner = binding or (type(args[0]) if inspect.isclass(target) else target).__name__
            for name, kind in kinds.items():
                if name in given and given[name] is not gin.REQUIRED:
                    check(f"{owner}.{name}", given[name], kind)
            return function(*args, **kwargs)

        # gin reads it to know the parameters, and does not look behind a wrapper by itself.
        check_and_call.__signature__ = signature
        if not inspect.isclass(target):
            return check_and_call
        target.__init__ = check_and_call
        return target

    return decorate
