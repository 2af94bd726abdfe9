"""The small texts that people write in recipes and arguments: gradients, sizes, ranges."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from blockmerge.errors import RecipeError, did_you_mean

__all__ = ["Choice", "one_of", "parse_layers", "parse_list", "parse_share", "parse_size", "parse_values", "unknown"]

_MAX_VALUES = 100_000
_LARGEST = 1e9
"""No share makes sense beyond this, and differences of shares stay finite."""
_PREFIXES = ("K", "M", "G", "T")
_UNITS = {"": 1, "B": 1}
_UNITS.update({f"{prefix}B": 1000**power for power, prefix in enumerate(_PREFIXES, start=1)})
_UNITS.update({f"{prefix}IB": 1024**power for power, prefix in enumerate(_PREFIXES, start=1)})
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
Choice = TypeVar("Choice", bound=StrEnum)


def parse_values(text: str, where: str) -> tuple[float, ...]:
    """``1.0,0.5,0.0`` as numbers, also in brackets, as recipes have it. ``where`` names the argument in errors."""
    inner = re.fullmatch(r"\s*\[(.*)\]\s*", text)
    bare = (inner[1] if inner else text).strip().removesuffix(",")
    return checked_values([_number(part, where) for part in bare.split(",")], where)


def parse_list(text: str, where: str) -> tuple[float, ...]:
    """``[1.0, 0.5, 0.0]``, a Python list, as numbers; what the original script takes."""
    try:
        parsed = literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise RecipeError(f"{where}: {text[:60]!r} is no list of numbers; write it like '[1.0, 0.5, 0.0]'") from error
    return checked_values(parsed if isinstance(parsed, list | tuple) else [parsed], where)  # pyright: ignore[reportUnknownArgumentType]


def checked_values(values: Iterable[object], where: str) -> tuple[float, ...]:
    """``values`` as floats, at least one, all finite."""
    numbers: list[float] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            shown = repr(value)[:40] if isinstance(value, str | float) else type(value).__name__
            raise RecipeError(f"{where}: {shown} is no finite number; a gradient looks like 1.0,0.5,0.0")
        numbers.append(float(value))
    if not 0 < len(numbers) <= _MAX_VALUES:
        raise RecipeError(f"{where}: holds {len(numbers)} numbers; a gradient needs at least one, like 1.0,0.5,0.0")
    return tuple(numbers)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecipeError(f"{where}: {text.strip()[:40]!r} is no number; a gradient looks like 1.0,0.5,0.0") from error


def parse_size(text: str | int, where: str) -> int:
    """``2GB`` (decimal) or ``2000MiB`` (binary) or plain bytes, as bytes."""
    match = _SIZE.fullmatch(str(text))
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or not (size := int(min(float(match[1]) * unit, 1e18))) >= 1:
        raise RecipeError(f"{where}: {str(text)[:40]!r} is no size; write it like 2GB, 500MB or 2000MiB")
    if isinstance(text, str) and not match[2] and size < 1000:
        raise RecipeError(f"{where}: {text!r} has no unit and would be bytes; write it like 2GB")
    return size


def parse_share(text: str, where: str) -> float:
    """``5%`` or ``0.05`` as a number from 0 to 1."""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise RecipeError(f"{where}: {text[:40]!r} is no share; write it like 5% or 0.05")
    return share


def parse_layers(text: str, where: str) -> tuple[int, int]:
    """``0:20``, half-open, as numbers."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*:\s*(\d{1,9})\s*", text)
    if not match or int(match[1]) >= int(match[2]):
        raise RecipeError(f"{where}: {text[:40]!r} is no range of layers; 0:20 means layers 0 to 19")
    return int(match[1]), int(match[2])


def one_of(choices: type[Choice], text: str, where: str) -> Choice:
    """The member of ``choices`` that ``text`` names, or an error that suggests the nearest."""
    try:
        return choices(text)
    except ValueError as error:
        raise RecipeError(f"{where}: {unknown(text, [choice.value for choice in choices])}") from error


def unknown(text: str, choices: Sequence[str], otherwise: str = "") -> str:
    """That ``text`` is none of ``choices``, with the nearest of them; else with what to do ``otherwise``, or all."""
    hint = did_you_mean(text, choices, otherwise or f"choose one of {', '.join(choices)}")
    return f"{text[:40]!r} is not known; {hint}"
