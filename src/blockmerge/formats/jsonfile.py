"""JSON files from strangers: bounded in size and depth, without duplicate keys."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from blockmerge.errors import FormatError

__all__ = ["parse_object", "read_object"]

MAX_BYTES = 100_000_000
"""More than any header, index or config in use; the limit of the safetensors format as well."""


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises :class:`FormatError` if the file is unreadable, too large or anything but one JSON object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(text) > max_bytes:
        raise FormatError(f"{path}: larger than {max_bytes:,} bytes; this is no JSON file of a model")
    return parse_object(text, str(path))


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object that ``text`` spells; ``where`` names it in errors."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise FormatError(f"{where}: the key {twice[:200]!r} appears twice; the file is corrupt or made to deceive")
        return found

    try:
        parsed: object = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: byte {error.start} is not UTF-8; the file is corrupt") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"{where}: not valid JSON: {reason}") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"{where}: holds a JSON {type(parsed).__name__}, not an object")
    return parsed  # pyright: ignore[reportUnknownVariableType]
