"""Settings of a method as people write them: a number, a gradient, or several of these for parts of the model.

weight: 0.5
weight: [0.2, 0.8]                                       # a gradient
weight: {attention: 0.3, all: [0, 1]}                    # for each block
weight: [{filter: mlp, value: 0.5}, {value: 0.1}]        # for names that hold a text; the first that fits counts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blockmerge.architectures import Block
from blockmerge.methods import Method, Parameter
from blockmerge.recipes.document import Node
from blockmerge.recipes.recipe import Curve, Selection, Setting

__all__ = ["BLOCKS", "Settings", "joined", "read_setting", "read_settings", "spelled"]

BLOCKS = tuple(block.value for block in Block if block is not Block.OTHER)
Settings = Mapping[str, Setting]
_EVERYTHING = Selection()


def read_settings(fields: Mapping[str, Node], parameters: Sequence[Parameter]) -> dict[str, Setting]:
    """What ``fields`` say about numbers and flags."""
    wanted = [parameter for parameter in parameters if parameter.kind != "choice" and parameter.name in fields]
    return {parameter.name: read_setting(fields[parameter.name], parameter) for parameter in wanted}


def read_setting(node: Node, parameter: Parameter, *, blocks: bool = True) -> Setting:
    """One setting; without ``blocks``, entries cannot name any."""
    if node.is_mapping and blocks and not ("value" in node or "filter" in node):
        return _by_block(node, parameter)
    items = node.items()
    if any(item.is_mapping for item in items):
        return tuple(_entry(item, parameter, blocks=blocks) for item in items)
    return (Curve(_values(node, parameter), _EVERYTHING, node.place),)


def _by_block(node: Node, parameter: Parameter) -> Setting:
    found = node.fields(dict.fromkeys(("all", *BLOCKS), False))
    if not found:
        node.problem("holds no value")
    ordered = sorted(found.items(), key=lambda item: item[0] == "all")
    return tuple(
        Curve(_values(value, parameter), Selection(block=_block(name)), value.place) for name, value in ordered
    )


def _entry(node: Node, parameter: Parameter, *, blocks: bool) -> Curve:
    fields = node.fields({"value": True, "filter": False} | ({"block": False} if blocks else {}))
    texts = [item.text() for item in fields["filter"].items() if item.plain() is not None] if "filter" in fields else []
    block = fields["block"].text() if "block" in fields else "all"
    if block not in ("all", *BLOCKS):
        fields["block"].problem(f"{block!r} is not known; choose one of {', '.join(BLOCKS)}")
        block = "all"
    selection = Selection(block=_block(block), filters=() if "*" in texts else tuple(texts))
    return Curve(_values(fields["value"], parameter) if "value" in fields else (0.0,), selection, node.place)


def _block(name: str) -> Block | None:
    return None if name == "all" else Block(name)


def _values(node: Node, parameter: Parameter) -> tuple[float, ...]:
    if parameter.kind == "number":
        return node.numbers()
    flags = tuple(float(_flag(item)) for item in node.items())
    if not flags:
        node.problem("holds no value")
    return flags


def _flag(node: Node) -> bool:
    value = node.plain()
    if value not in (0, 1):
        node.problem(f"needs true or false, not {str(value)[:40]!r}")
    return value == 1


def joined(*levels: Settings) -> dict[str, Setting]:
    """The settings of several levels as one: for each tensor the first level counts that says something about it."""
    names = dict.fromkeys(name for level in levels for name in level)
    return {name: tuple(curve for level in levels for curve in level.get(name, ())) for name in names}


def spelled(settings: Settings, method: Method) -> dict[str, Any]:
    """``settings`` as :func:`read_settings` reads them."""
    flags = {parameter.name for parameter in method.parameters if parameter.kind == "flag"}
    return {name: _spelled(setting, flag=name in flags) for name, setting in settings.items()}


def _spelled(setting: Setting, *, flag: bool) -> Any:
    values = [_short(tuple(map(bool, curve.values)) if flag else curve.values) for curve in setting]
    selections = [curve.selection for curve in setting]
    if selections == [_EVERYTHING]:
        return values[0]
    names = [str(selection.block or "all") for selection in selections]
    by_block = not any(selection.filters for selection in selections)
    if by_block and len(set(names)) == len(names) and "all" not in names[:-1]:
        return dict(zip(names, values, strict=True))
    return [
        {**_spelled_selection(selection), "value": value} for selection, value in zip(selections, values, strict=True)
    ]


def _spelled_selection(selection: Selection) -> dict[str, Any]:
    filters = selection.filters
    words = {
        "filter": None if not filters else filters[0] if len(filters) == 1 else list(filters),
        "block": selection.block.value if selection.block else None,
    }
    return {word: value for word, value in words.items() if value is not None}


def _short(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
