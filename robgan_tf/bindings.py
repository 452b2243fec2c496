"""The bindings of a configuration: which were used, which have a part in what is learnt, and what differs between two.

A binding has no part in what is learnt if its parameter says so where it is defined (`may_change`), or if its
configurable is reached by such parameters alone: the evaluation may change, so all that only the evaluation refers to
may change, too. Whatever is reached in another way, or in none, counts as learnt.
"""

from __future__ import annotations

import re
from typing import Callable

import gin

_REFERENCE = re.compile(r"[@%][\w./]+")


def may_change(*parameters: str) -> Callable:
    """Declares parameters of a configurable, a function or class, that may change between two starts of a run.

    To be put below `@gin.configurable`. They have no part in what is learnt: paths, limits, what is measured.

    Args:
        parameters: names; none for all parameters of the configurable.
    """

    def declare(configurable):
        configurable.may_change = frozenset(parameters) or True
        return configurable

    return declare


def operative_config() -> str:
    """Returns all of gin's bindings that were used, or will be where what they refer to is called, a line each."""
    config = gin.operative_config_str(max_line_length=10**6)
    used, bound = bindings(config), explicit_bindings()
    # `@name` is called in the course of a run, and `@name()` was when its value was needed. A macro is `%name`.
    later, seen = {}, set()
    references = [one for value in used.values() for one in re.findall(r"@[\w./]+(?!\(|[\w./])", value)]
    while references:
        reference = references.pop()
        if reference in seen:
            continue
        seen.add(reference)
        scopes, name = _parts(reference[1:])
        found = {
            one: value for one, value in bound.items() if one not in used and _holds(one, reference[0], scopes, name)
        }
        later.update(found)
        references += [one for value in found.values() for one in _REFERENCE.findall(value)]
    if later:
        config += "\n# Parameters of what was not called yet:\n"
        config += "".join(f"{name} = {later[name]}\n" for name in sorted(later))
    return re.sub("={80,}", "=" * 80, config)  # gin draws lines of this length


def explicit_bindings() -> dict[str, str]:
    """Returns the bindings that files and flags have made, used or not; defaults are not among them."""
    return bindings(gin.config_str(max_line_length=10**6))


def bindings(config: str) -> dict[str, str]:
    """Returns the bindings of an operative gin configuration, name -> value, without comments and line breaks."""
    lines = [line for line in config.splitlines() if line.strip() and not line.startswith(("#", "import ", "from "))]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    joined = re.sub(r"\n\s+", " ", joined)
    return dict(line.split(" = ", 1) for line in joined.splitlines())


def config_differences(old: str, new: str, explicit: dict[str, str] | None = None) -> list[str]:
    """Returns what differs between two operative configurations and has a part in what is learnt, as phrases.

    Args:
        old: the configuration that a run was made with.
        new: the configuration of this start.
        explicit: the bindings of `new` that are no defaults; None for all. A parameter that `old` does not know and
            that has its default is one that came later, whose default leaves all as it was.
    """
    before, after = bindings(old), bindings(new)
    free = [_that_may_change(config) for config in (before, after)]
    changed = []
    for name in sorted({**before, **after}):
        here, there = before.get(name), after.get(name)
        if here == there or all(name in may for may, config in zip(free, (before, after)) if name in config):
            continue
        if here is None and explicit is not None and name not in explicit:
            continue
        changed.append(f"{name} was {here or 'not set'}, is {there or 'not set'}")
    return changed


def _that_may_change(config: dict[str, str]) -> set[str]:
    """Returns the names of the bindings that have no part in what is learnt."""
    declared = {name for name in config if _is_declared(name)}
    measured = _reached(config, declared)
    learnt = _reached(config, [name for name in config if name not in declared | measured])
    return declared | (measured - learnt)


def _is_declared(binding: str) -> bool:
    owner, _, parameter = binding.rpartition(".")
    try:
        declared = getattr(gin.get_configurable(_parts(owner)[1]), "may_change", frozenset())
    except ValueError:  # a macro, or a part that is no more
        return False
    return declared is True or parameter in declared


def _reached(config: dict[str, str], names) -> set[str]:
    """Returns the bindings that the values of `names` refer to, directly or by others; what is declared is no way."""
    found, seen = set(), set()
    waiting = [((), name) for name in names]
    while waiting:
        scope, binding = waiting.pop()
        for reference in _REFERENCE.findall(config[binding]):
            scopes, name = _parts(reference[1:])
            if reference[0] == "%":
                scopes = (name,)  # gin evaluates a macro in a scope of its name
            scopes = scopes or scope  # a reference without a scope is called in that of its caller
            if (reference[0], scopes, name) in seen:
                continue
            seen.add((reference[0], scopes, name))
            for other in config:
                if _holds(other, reference[0], scopes, name):
                    found.add(other)
                    if not _is_declared(other):
                        waiting.append((scopes, other))
    return found


def _parts(reference: str) -> tuple[tuple[str, ...], str]:
    """Returns scopes and name of what a reference names."""
    *scopes, name = reference.split("/")
    return tuple(scopes), name


def _holds(binding: str, kind: str, scopes: tuple[str, ...], name: str) -> bool:
    """Whether a binding is one of what is referred to by `@scopes/name`, or the macro `%name`, by its `kind`."""
    if kind == "%":
        return binding == name
    outer, owner = _parts(binding.rpartition(".")[0])
    # Bindings of outer scopes hold in inner ones; and gin lets a module stand before a name.
    same = owner == name or owner.endswith(f".{name}") or name.endswith(f".{owner}")
    return same and bool(owner) and outer == scopes[: len(outer)]
