"""The one tree of errors of graphopt.

    GraphoptError                 anything that graphopt itself says; exit 70 if nothing finer fits
    ├── UsageError           (1)  a bad option, recipe, pass name or data file
    ├── ModelError           (2)  the input model cannot be read, is invalid or unsafe to read
    ├── GateError            (3)  the result differs from the original, or a budget does not hold
    ├── BudgetError          (4)  a pass was left out because nothing that it does keeps to the budget
    ├── ResourceError        (5)  a limit on size, memory or time was reached
    ├── ProviderError        (6)  a runtime or execution provider that was asked for is missing
    ├── OutputError          (7)  the result could not be written; nothing was changed
    └── NativeError         (70)  native code (ONNX Runtime, a checker) failed on a request
        └── NativeDeathError      ... or took its process with it

Each message is one readable line: what, where, why and what to do about it. The number is the exit
code of the command line.
"""

from __future__ import annotations

import re
from typing import ClassVar

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str, limit: int = 200) -> str:
    """Make a string that came from a model safe for a terminal: one line, no control characters.

    Args:
        text: any string, for example a node's name.
        limit: the most characters to keep.

    Returns:
        The text with control, bidirectional and surrogate characters escaped, cut to ``limit``.
    """
    safe = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


class GraphoptError(Exception):
    """Base of every error that graphopt raises on purpose.

    Args:
        what: what went wrong and where, in words.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        """The error as one line."""
        text = printable(self.what, 2000)
        return f"{text}. {printable(self.hint, 500)}" if self.hint else text

    def __reduce__(self) -> tuple[type[GraphoptError], tuple[str, str]]:
        """Keep both parts when the error crosses a process boundary."""
        return (type(self), (self.what, self.hint))


class UsageError(GraphoptError):
    """The request is wrong: an option, a recipe, a pass name, a data file."""

    exit_code = 1


class ModelError(GraphoptError):
    """The input model cannot be read, is invalid, or would be unsafe to read."""

    exit_code = 2


class GateError(GraphoptError):
    """A result does not equal the original, or a budget does not hold."""

    exit_code = 3


class BudgetError(GraphoptError):
    """Nothing that a pass does keeps to the budget, and the result is without that pass."""

    exit_code = 4


class ResourceError(GraphoptError):
    """A limit on size, memory or time was reached."""

    exit_code = 5


class ProviderError(GraphoptError):
    """A runtime or an execution provider that was asked for is not available."""

    exit_code = 6


class OutputError(GraphoptError):
    """The result could not be written; what stood there before is untouched."""

    exit_code = 7


class NativeError(GraphoptError):
    """Native code refused or failed a request; the process lives on."""


class NativeDeathError(NativeError):
    """Native code died, hung or outgrew its limits; its process was replaced."""
