"""What a model's card says about licence and language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from blockmerge.formats.regular import open_regular

__all__ = ["read_card"]

_CARRIED = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag", "base_model")
_JOINED = ("license", "license_name", "license_link", "language")
_MAX_BYTES = 64_000


def read_card(parts: Sequence[Path | None]) -> dict[str, Any]:
    """What the cards of a model's ``parts`` say together: the model, and its adapter, if it has one.

    Of what both say and say differently, licences and languages are listed; everything else is the model's.
    """
    found: dict[str, Any] = {}
    for card in map(_read, parts):
        for key, value in card.items():
            if key in _JOINED and found.get(key, value) != value:
                value = list(dict.fromkeys([*_listed(found[key]), *_listed(value)]))
                found[key] = value[0] if len(value) == 1 else value
            else:
                found.setdefault(key, value)
    return found


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _read(folder: Path | None) -> dict[str, Any]:
    """The carried-over keys of the front matter of ``folder``'s README.md; empty if there is none or it is broken."""
    try:
        with open_regular((folder or Path()) / "README.md") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return {}
    if folder is None or not text.startswith("---\n") or (end := text.find("\n---", 4)) < 0:
        return {}
    try:
        loaded: Any = yaml.load(text[4:end], Loader=_NoAliases)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, TypeError, RecursionError):
        return {}
    if not isinstance(loaded, dict):
        return {}
    entries = cast("dict[object, Any]", loaded)
    return {key: entries[key] for key in _CARRIED if _plain(entries.get(key))}


def _plain(value: object) -> bool:
    """A text that can be shown, or a short list of such texts."""
    entries: list[object] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    texts = [entry for entry in entries if isinstance(entry, str) and len(entry) <= 300 and entry.isprintable()]
    return 0 < len(entries) == len(texts) <= 100


class _NoAliases(yaml.SafeLoader):
    """A safe loader without aliases, which only make front matter explode."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # pyright: ignore[reportUnknownMemberType]
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)
