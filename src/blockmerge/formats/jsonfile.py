"""JSON files from strangers: bounded in size, number of values and depth, plain text, without duplicate keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

from blockmerge.errors import FormatError
from blockmerge.formats.regular import open_regular

__all__ = ["parse_object", "read_object"]

MAX_BYTES = 100_000_000
"""More than any header, index or config in use; the limit of the safetensors format as well."""
MAX_VALUES = 5_000_000
"""More than twice those of the largest tokenizers in use: 262,000 tokens and 515,000 merges, each a pair."""
MAX_DEPTH = 100
"""Config and tokenizer files have some ten levels; what follows them down must not run out of stack."""
MAX_DIGITS = 300
"""Whole numbers that are longer are no sizes, cost quadratic time, and do not fit a float."""
_Container = dict[str, Any] | list[Any]
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises :class:`FormatError` if the file is unreadable, too large or anything but one JSON object.
    """
    try:
        with open_regular(path) as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(text) > max_bytes:
        raise FormatError(f"{path}: larger than {max_bytes:,} bytes; this is no JSON file of a model")
    return parse_object(text, str(path))


def parse_object(text: bytes, where: str, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object that ``text`` spells, of at most ``max_values`` values; ``where`` names it in errors."""
    if sum(map(text.count, (b",", b"[", b"{"))) > max_values:  # before any of them takes memory
        raise FormatError(f"{where}: holds more than {max_values:,} values; this is no JSON file of a model")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise FormatError(f"{where}: the key {twice[:200]!r} appears twice; the file is corrupt or made to deceive")
        return found

    try:
        parsed: object = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: byte {error.start} is not UTF-8; the file is corrupt") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"{where}: not valid JSON: {reason}") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"{where}: holds a JSON {type(parsed).__name__}, not an object")
    found = cast("dict[str, Any]", parsed)
    _check_depth(found, where)
    if _SURROGATE.search(text):  # rare, since whole pairs are mostly written as the character that they mean
        _check_encodes(found, where)
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _check_depth(value: dict[str, Any], where: str) -> None:
    level: list[_Container] = [value]
    for _ in range(MAX_DEPTH):
        parts = (part for outer in level for part in (outer.values() if isinstance(outer, dict) else outer))
        level = [cast("_Container", part) for part in parts if isinstance(part, dict | list)]
        if not level:
            return
    raise FormatError(f"{where}: not valid JSON: nested too deeply")


def _check_encodes(value: object, where: str) -> None:
    """Half of a surrogate pair can be spelled in JSON, and in no file that we would write."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{where}: holds half of a surrogate pair, which is no text") from error
