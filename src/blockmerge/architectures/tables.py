"""Reading ``orders.json``, the table of module orders that ``tools/make_order_tables.py`` writes and describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from blockmerge.architectures.blocks import fold_indices

__all__ = [
    "MAX_NAME",
    "Architecture",
    "Module",
    "Place",
    "architecture_of",
    "declared_class",
    "known_architectures",
    "number_at",
    "table_version",
]

MAX_NAME: Final = 512
"""Characters of the longest name that is looked up; no model has one near it."""
_MAX_DEPTH: Final = 32
_MAX_STRANGERS: Final = 4096


@dataclass(slots=True)
class Module:
    """A module of a model: where its own tensors and its children stand in it.

    ``orders`` has more than one entry where kinds of layers disagree (mllama): each maps the children of its kind.
    """

    own: dict[str, int] = field(default_factory=dict[str, int])
    children: dict[str, Module] = field(default_factory=dict[str, "Module"])
    orders: list[dict[str, int]] = field(default_factory=list[dict[str, int]])

    def rank(self, child: str, present: Iterable[str]) -> int:
        """The position of a child in a module that has the children ``present``."""
        fitting = (order for order in self.orders if order.keys() >= set(present))
        return next(fitting, self.orders[0]).get(child, 0)


class Place(NamedTuple):
    """Where a tensor stands: ``key`` sorts as ``state_dict()`` lists; ``name`` is the module's spelling of it.

    ``separate`` marks a tensor that loading fuses with others, as the weights of single experts.
    """

    key: tuple[int, ...]
    name: str
    separate: bool = False


@dataclass(frozen=True)
class Architecture:
    """What the table knows of one model class; the fields are those of the file."""

    name: str
    root: Module
    base: str
    tie: bool
    tied: Mapping[str, str]
    shared: tuple[str, ...]
    ignored: re.Pattern[str]
    renames: tuple[tuple[re.Pattern[str], str], ...]
    stack: str
    depth: str
    tail: Mapping[str, Any]
    kinds: bool
    strangers: set[str] = field(default_factory=set[str])
    """Names looked up in vain, with their indices folded: a file with one unknown name tends to have thousands."""

    def place(self, name: str, siblings: Mapping[str, set[str]] | None = None) -> Place | None:
        """The place of a tensor under its name in a checkpoint; None if the class has no such tensor.

        Tried in turn, as loading does: the name itself, with or without the prefix of the bare model, and all of
        these after the renamings of old checkpoints. ``siblings`` maps paths of modules to the names of their
        children; it matters where kinds of layers disagree.
        """
        if len(name) > MAX_NAME or name.count(".") > _MAX_DEPTH:
            return None
        place = self._walk(name, siblings or {})
        if place is not None:
            return place
        folded = fold_indices(name)
        if folded in self.strangers:
            return None
        for spelling in self._other_spellings(name):
            place = self._walk(spelling, siblings or {})
            if place is not None:
                return place
        if len(self.strangers) < _MAX_STRANGERS:
            self.strangers.add(folded)
        return None

    def layer(self, name: str) -> tuple[int, str]:
        """The number of the decoder's layer that a tensor of the module is in, and its name there; -1 outside."""
        if not self.stack or not name.startswith(f"{self.stack}."):
            return -1, ""
        number, _, rest = name[len(self.stack) + 1 :].partition(".")
        return _index(number), rest

    def _other_spellings(self, name: str) -> Iterable[str]:
        yield from self._other_prefixes(name)
        renamed = name
        for pattern, replacement in self.renames:
            renamed = pattern.sub(replacement, renamed, count=1)
        if renamed != name and len(renamed) <= 2 * MAX_NAME:
            yield renamed
            yield from self._other_prefixes(renamed)

    def _other_prefixes(self, name: str) -> Iterable[str]:
        if self.base:
            yield f"{self.base}.{name}"
            if name.startswith(f"{self.base}."):
                yield name[len(self.base) + 1 :]

    def _walk(self, name: str, siblings: Mapping[str, set[str]]) -> Place | None:
        *path, leaf = name.split(".")
        module, key, separate = self.root, list[int](), False
        for depth, part in enumerate(path):
            folded, index = part, -1
            if part not in module.children or "*" in part:
                index = _index(part)
                folded = "*" if "*" in module.children else "+*"
                if index < 0 or folded not in module.children:
                    return None
                separate |= folded == "+*"
            if len(module.orders) == 1:
                key.append(module.orders[0][folded])
            else:
                key.append(module.rank(folded, siblings.get(".".join(path[:depth]), ())))
            if index >= 0:
                key.append(index)
            module = module.children[folded]
        if leaf not in module.own:
            return None
        key.append(module.own[leaf])
        return Place(tuple(key), name, separate)


@lru_cache(maxsize=1024)
def _index(part: str) -> int:
    """The index that a component of a name is, written as torch writes it; -1 for any other text."""
    if not (part.isascii() and part.isdigit()) or len(part) > 6 or (part[0] == "0" and part != "0"):
        return -1
    return int(part)


@cache
def _table() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("orders.json").read_bytes())


def table_version() -> str:
    """The release of transformers whose classes the table describes."""
    return _table()["transformers"]


def known_architectures() -> tuple[str, ...]:
    """The model classes that the table knows, sorted."""
    return tuple(sorted(_table()["architectures"]))


def declared_class(config: Mapping[str, Any]) -> str | None:
    """What a parsed config.json says in ``architectures[0]``, if it is a name."""
    listed = config.get("architectures")
    name = cast("list[Any]", listed)[0] if isinstance(listed, list) and listed else None
    return name if isinstance(name, str) else None


def architecture_of(config: Mapping[str, Any]) -> Architecture | None:
    """The class that a parsed config.json declares, else the one of its ``model_type``; None if unknown."""
    known = _table()["architectures"]
    name = declared_class(config)
    if name not in known:
        name = _class_of_type(config.get("model_type"))
    return None if name is None else _architecture(name, _exchanged(known[name], config))


def number_at(config: Mapping[str, Any], path: str) -> int | None:
    """The whole number at ``a.b``, not negative; None for anything else, since config.json is not trusted."""
    value: Any = config
    for key in path.split("."):
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _class_of_type(model_type: object) -> str | None:
    return _table()["model_types"].get(model_type) if isinstance(model_type, str) else None


def _exchanged(entry: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The class whose bare model a composite has in place of the language model that the table was made with."""
    inner = config.get("text_config")
    if "text" not in entry or not isinstance(inner, Mapping):
        return None
    model_type = cast("dict[str, Any]", inner).get("model_type")
    return None if model_type == entry["text"][1] else _class_of_type(model_type)


@cache
def _architecture(name: str, text: str | None) -> Architecture:
    """The entry of a class; with the bare model of the class ``text`` as its language model."""
    table = _table()
    entry = table["architectures"][name]
    root = read_tree(entry["order"])
    if text is not None:
        other = table["architectures"][text]
        *path, last = entry["text"][0].split(".")
        parent = root
        for part in path:
            parent = parent.children[part]
        bare = read_tree(other["order"])
        parent.children[last] = bare.children.get(other.get("base", ""), bare)
    return Architecture(
        name=name,
        root=root,
        base=entry.get("base", ""),
        tie=entry.get("tie", False),
        tied=entry.get("tied", {}),
        shared=tuple(entry.get("shared", ())),
        ignored=re.compile("|".join(f"(?:{pattern})" for pattern in [*table["ignored"], *entry.get("ignored", ())])),
        renames=tuple(
            (re.compile(pattern), replacement)
            for pattern, replacement in [*entry.get("renames", ()), *table["renames"]]
        ),
        stack=entry.get("stack", ""),
        depth=entry.get("depth", ""),
        tail=entry.get("tail", {}),
        kinds=_has_kinds(root),
    )


def read_tree(tree: Any) -> Module:
    """The module that a subtree of the file describes."""
    while isinstance(tree, str) and tree.startswith("="):
        tree = _referenced(tree)
    if isinstance(tree, str):
        return Module(own=_positions(tree.split()))
    kinds = cast("list[dict[str, Any]]", tree if isinstance(tree, list) else [tree])
    own = kinds[0].get("", "").split()
    module = Module(_positions(own))
    for kind in kinds:
        below = {name.partition(".")[0]: (name, child) for name, child in kind.items() if name}
        module.orders.append(_positions(below, len(own)))
        module.children |= {first: _chain(name, child) for first, (name, child) in below.items()}
    return module


def _chain(name: str, tree: Any) -> Module:
    """The module ``a`` that the key ``a.b.c`` stands for: it holds ``b`` alone, and that ``c``."""
    module = read_tree(tree)
    for part in reversed(name.split(".")[1:]):
        module = Module(children={part: module}, orders=[{part: 0}])
    return module


def _has_kinds(module: Module) -> bool:
    return len(module.orders) > 1 or any(map(_has_kinds, module.children.values()))


def _positions(names: Iterable[str], first: int = 0) -> dict[str, int]:
    return {name: position for position, name in enumerate(names, first)}


def _referenced(reference: str) -> Any:
    """The subtree that ``=Class a.b`` stands for; the keys on the way may join several modules."""
    name, _, path = reference[1:].partition(" ")
    tree = _table()["architectures"][name]["order"]
    while path:
        while isinstance(tree, str):
            tree = _referenced(tree)
        key = next(key for key in tree if key and f"{path}.".startswith(f"{key}."))
        tree, path = tree[key], path[len(key) + 1 :]
    return tree
