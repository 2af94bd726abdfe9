"""Every error that Blockmerge raises on purpose.

A message is one line: what is wrong, where (file, tensor, argument, line), and what to do about it.
The class decides the exit code of the command line; scripts may rely on the codes.

    BlockmergeError                 1   anything below, or an extra that is not installed
    ├── RecipeError                 2   the request itself: arguments, gradient text, recipe files
    ├── ModelError                  3   one input is unusable: missing, incomplete, quantised
    │   └── FormatError             3   bytes that are not what their format promises
    ├── MismatchError               4   the inputs do not fit each other
    ├── NonFiniteError              5   NaN or infinity in an input or a result
    ├── OutputError                 6   the result cannot be written there: exists, no room, no permission
    ├── VerificationError           7   a merged model is not what its manifest or its inputs say
    └── Problems                    *   several of the above at once; the code of the first

    Ctrl-C ends with 130, SIGTERM with 143 and SIGHUP with 129, as a shell expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

__all__ = [
    "BlockmergeError",
    "FormatError",
    "MismatchError",
    "ModelError",
    "NonFiniteError",
    "OutputError",
    "Problems",
    "RecipeError",
    "VerificationError",
    "attempt",
    "did_you_mean",
    "listed",
    "printable",
    "raise_all",
]

T = TypeVar("T")


class BlockmergeError(Exception):
    """The root: catch this to catch everything that Blockmerge refuses."""

    exit_code = 1


class RecipeError(BlockmergeError):
    """The request cannot be understood or contradicts itself."""

    exit_code = 2


class ModelError(BlockmergeError):
    """A model cannot be used: folder missing, no weights, quantised, or not permitted."""

    exit_code = 3


class FormatError(ModelError):
    """A file breaks its own format: truncated, corrupt or hostile."""


class MismatchError(BlockmergeError):
    """Models do not fit each other: shapes, tensors or architectures differ."""

    exit_code = 4


class NonFiniteError(BlockmergeError):
    """A weight that is read or written is NaN or infinite."""

    exit_code = 5


class OutputError(BlockmergeError):
    """The merged model cannot be written: it exists, there is no room, or no permission."""

    exit_code = 6


class VerificationError(BlockmergeError):
    """A merged model differs from its manifest, or from what its inputs give."""

    exit_code = 7


class Problems(BlockmergeError):  # noqa: N818 - it is several
    """Several errors found together; ``problems`` holds them in the order in which they were found."""

    def __init__(self, problems: Sequence[BlockmergeError]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.exit_code = self.problems[0].exit_code


def listed(names: Iterable[str], most: int = 6) -> str:
    """The first few of ``names`` and how many more there are, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(text: str, choices: Iterable[str], otherwise: str) -> str:
    """The nearest of ``choices`` to what a person wrote, as a question; or, if none is near, ``otherwise``."""
    from difflib import get_close_matches  # only what is wrong needs it

    near = get_close_matches(text, list(choices), 1)
    return f"did you mean {near[0]}?" if near else otherwise


def printable(text: str) -> str:
    """``text`` for terminals, logs and published files: what cannot be printed (controls, half pairs) as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def raise_all(problems: Iterable[BlockmergeError]) -> None:
    """Raise nothing, the one problem, or all of them as one :class:`Problems`."""
    found = list(problems)
    if len(found) == 1:
        raise found[0]
    if found:
        raise Problems(found)


def attempt(problems: list[BlockmergeError], build: Callable[[], T], default: T) -> T:
    """The value of ``build``; a :class:`RecipeError` of it is added to ``problems``, and gives ``default``."""
    try:
        return build()
    except RecipeError as error:
        problems.append(error)
        return default
