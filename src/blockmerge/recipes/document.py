"""YAML from strangers, with the line of every value, and all problems at once.

PyYAML builds the node graph; nothing is constructed but text, numbers, flags, lists and mappings. Aliases are followed
but counted, so a file of nested aliases ends in an error, not in memory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TypeVar

import yaml

from blockmerge.errors import BlockmergeError, RecipeError, attempt, did_you_mean, printable, raise_all
from blockmerge.formats.regular import open_regular

__all__ = ["Document", "Node"]

MAX_BYTES = 200_000
MAX_NODES = 200_000
MAX_DOCUMENTS = 100
MAX_DIGITS = 300
T = TypeVar("T")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, TypeError)
"""What PyYAML raises over values that do not fit the tag they bear."""


_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers that YAML 1.1 takes for text unless they hold a point and a sign: 1e-5."""


_SURROGATE = re.compile(r"\\(u|U0000)[dD][89a-fA-F]")


class Document:
    """One YAML document of a recipe file. ``problems`` collects what is wrong; :meth:`check` raises it together."""

    def __init__(self, root: yaml.Node, name: str, visits: Iterator[int]) -> None:
        self.name = name
        self.problems: list[BlockmergeError] = []
        self._visits = visits
        if not isinstance(root, yaml.MappingNode):
            line = root.start_mark.line + 1
            raise RecipeError(f"{name}:{line}: holds no recipe; a recipe is a list of keys and values")
        self.root = Node(self, root, "")

    @classmethod
    def parse(cls, text: str, name: str) -> list[Document]:
        """The documents that ``text`` holds, at least one. Raises :class:`RecipeError`."""
        if len(text) > MAX_BYTES:
            raise RecipeError(f"{name}: larger than {MAX_BYTES:,} bytes; this is no recipe")
        if _SURROGATE.search(text):
            raise RecipeError(f"{name}: spells half of a surrogate pair, which is no text; write the character itself")
        try:
            roots: list[yaml.Node] = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        except (*_UNREADABLE, RecursionError) as error:
            raise RecipeError(f"{name}{_line_of(error)}: not valid YAML: {_reason(error)}") from error
        roots = [root for root in roots if root.value != ""]  # what a line of --- at either end leaves
        if not 0 < len(roots) <= MAX_DOCUMENTS:
            raise RecipeError(
                f"{name}: " + ("holds no recipe" if not roots else f"more than {MAX_DOCUMENTS} documents")
            )
        visits = count(1)
        return [cls(root, name, visits) for root in roots]

    @classmethod
    def read(cls, path: Path) -> list[Document]:
        """The documents in the file at ``path``. Raises :class:`RecipeError`."""
        try:
            with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
                return cls.parse(file.read(MAX_BYTES + 1), str(path))
        except OSError as error:
            if path.is_dir():
                raise RecipeError(f"{path}: is a folder; a recipe is a YAML file") from error
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is not a text file in UTF-8") from error

    def visit(self) -> None:
        """Count a node that is looked at, in whichever document of the file."""
        if next(self._visits) > MAX_NODES:
            raise RecipeError(f"{self.name}: holds more than {MAX_NODES:,} values; this is no recipe")

    def check(self) -> None:
        """Raise what was found wrong so far."""
        raise_all({str(problem): problem for problem in self.problems}.values())


class Node:
    """One value in a document: where it stands and what it says."""

    def __init__(self, document: Document, node: yaml.Node, path: str) -> None:
        document.visit()
        self._document, self._node, self.path = document, node, path

    def __contains__(self, key: str) -> bool:
        """Whether it is a mapping with this key."""
        return key in self.keys()

    @property
    def place(self) -> str:
        """File and line without a folder, for what is published."""
        return f"{printable(Path(self._document.name).name)}:{self._node.start_mark.line + 1}"

    @property
    def where(self) -> str:
        """File, line and key, for errors."""
        line = self._node.start_mark.line + 1
        return f"{self._document.name}:{line}" + (f": {self.path}" if self.path else "")

    def problem(self, what: str) -> None:
        """Note that something is wrong here, and go on."""
        self._document.problems.append(RecipeError(f"{self.where}: {what}"))

    @property
    def has_problems(self) -> bool:
        """Whether anything in the document was found wrong so far."""
        return bool(self._document.problems)

    def attempt(self, build: Callable[[], T], default: T) -> T:
        """The value of ``build``; its error is noted and gives ``default``."""
        return attempt(self._document.problems, build, default)

    def fields(
        self,
        known: Mapping[str, bool],
        gone: Mapping[str, str] | None = None,
        *,
        why: str = "is not known",
        shown: Iterable[str] | None = None,
    ) -> dict[str, Node]:
        """The entries of a mapping. ``known`` says which keys there may be, and whether they must.

        ``gone`` explains keys that there once were, ``why`` what is wrong with all others; only keys in ``shown`` are
        suggested.
        """
        if not isinstance(self._node, yaml.MappingNode):
            self.problem("needs keys and values here")
            return {}
        found: dict[str, Node] = {}
        for key, value in self._pairs:
            node = Node(self._document, value, f"{self.path}.{key}".lstrip("."))
            if key in found:
                node.problem("is given twice")
            elif key in known:
                found[key] = node
            else:
                node.problem((gone or {}).get(key) or f"{why}; {_suggestion(key, list(shown or known))}")
        for key in (key for key, required in known.items() if required and key not in found):
            self.problem(f"{key} is missing")
        return found

    @cached_property
    def _pairs(self) -> list[tuple[str, yaml.Node]]:
        """Keys as text, and values; a key that is no single value is a problem."""
        pairs: list[tuple[str, yaml.Node]] = []
        entries: list[tuple[yaml.Node, yaml.Node]] = self._node.value
        for key, value in entries:
            if isinstance(key, yaml.ScalarNode):
                pairs.append((str(key.value), value))
            else:
                self.problem("has a key that is no single word")
        return pairs

    def pairs(self) -> list[tuple[str, Node]]:
        """The entries of a mapping as they stand; empty for anything else."""
        if not isinstance(self._node, yaml.MappingNode):
            return []
        return [(key, Node(self._document, value, f"{self.path}.{key}".lstrip("."))) for key, value in self._pairs]

    def keys(self) -> list[str]:
        """The keys of a mapping as written; empty for anything else."""
        return [key for key, _ in self._pairs] if isinstance(self._node, yaml.MappingNode) else []

    @property
    def is_mapping(self) -> bool:
        """Whether it holds keys and values."""
        return isinstance(self._node, yaml.MappingNode)

    @property
    def is_null(self) -> bool:
        """Whether it says nothing: an empty value, ``null`` or ``~``."""
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == "tag:yaml.org,2002:null"

    def items(self) -> list[Node]:
        """The entries of a list; a single value counts as a list of one."""
        if isinstance(self._node, yaml.SequenceNode):
            return [Node(self._document, value, f"{self.path}[{i}]") for i, value in enumerate(self._node.value)]
        return [self]

    def plain(self) -> str | int | float | bool | None:
        """A single value as YAML reads it; a list or mapping is a problem."""
        if not isinstance(self._node, yaml.ScalarNode):
            self.problem("needs a single value here")
            return None
        if len(self._node.value) > MAX_DIGITS and self._node.tag in _NUMBERS:
            self.problem(f"is a number of {len(self._node.value):,} digits")
            return None
        try:
            value: object = yaml.SafeLoader("").construct_object(self._node, deep=True)  # pyright: ignore[reportUnknownMemberType]
        except _UNREADABLE as error:
            self.problem(f"cannot be understood: {_reason(error)}")
            return None
        if isinstance(value, str) and self._node.style is None and _SCIENTIFIC.fullmatch(value):
            return float(value)
        if value is None or isinstance(value, str | int | float | bool):
            return value
        return str(self._node.value)  # dates and the like: the text

    def text(self) -> str:
        """A single value as text."""
        value = self.plain()
        if isinstance(value, bool) or (value is None and isinstance(self._node, yaml.ScalarNode)):
            self.problem("needs a text here")
        if value is None or isinstance(value, bool):
            return ""
        return value if isinstance(value, str) else str(self._node.value)

    def flag(self) -> bool:
        """True or false."""
        value = self.plain()
        if not isinstance(value, bool):
            self.problem(f"needs true or false, not {str(value)[:40]!r}")
        return value is True

    def whole(self) -> int:
        """A whole number."""
        value = self.plain()
        if not isinstance(value, int) or isinstance(value, bool):
            self.problem("needs a whole number")
            return 0
        return value

    def numbers(self) -> tuple[float, ...]:
        """A list of numbers, or one."""
        from blockmerge.recipes.values import checked_values

        entries = [item.plain() for item in self.items()]
        return self.attempt(lambda: checked_values(entries, self.where), (0.0,))


def _suggestion(key: str, known: Sequence[str]) -> str:
    return did_you_mean(key, known, "known are " + ", ".join(known) if known else "take it out")


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(getattr(error, "problem", None) or error).splitlines()[0]
