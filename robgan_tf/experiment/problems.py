"""All that is wrong with a configuration, found in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

# What wrong input raises where a part is made. RuntimeError is gin's for a missing required binding.
_WRONG_INPUT = (ValueError, TypeError, OSError, RuntimeError, tf.errors.OpError)


class ConfigurationError(ValueError):
    """All that is wrong with a configuration, so that it can be mended in one go.

    Attributes:
        problems: the errors, one for each contradiction that was found.
    """

    def __init__(self, problems: Sequence[Exception]):
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class Problems:
    """Gathers what goes wrong while the parts of an experiment are made.

    Attributes:
        found: the errors so far.
    """

    def __init__(self):
        self.found = []

    def part(self, make: Callable, *needs):
        """Returns what `make` makes. None where it can't, which is a problem, and where one of `needs` is None."""
        if any(need is None for need in needs):
            return None
        try:
            return make()
        except _WRONG_INPUT as error:
            self.found.append(error)
            return None

    def check(self, contradiction: bool, message: str):
        """Notes a contradiction, where there is one."""
        if contradiction:
            self.found.append(ValueError(message))

    def raise_found(self):
        """Raises a ConfigurationError of all problems, where there are any."""
        if self.found:
            raise ConfigurationError(self.found) from self.found[0]
