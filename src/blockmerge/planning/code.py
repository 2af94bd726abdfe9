"""Code that a model brings along: bytes that are copied when asked for, and told of in any case. Nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from blockmerge.errors import ModelError, listed, printable
from blockmerge.formats.jsonfile import parse_object
from blockmerge.sources import SmallFile, Source

__all__ = ["code_of"]

_TOKENIZER = "tokenizer_config.json"


def code_of(source: Source, *, copy: bool) -> tuple[dict[str, SmallFile], list[str], list[str]]:
    """The code to copy from ``source``; warnings and notes about it.

    If ``copy``, that is every ``.py`` beside a config whose ``auto_map`` names one: those import one another.
    """
    there = {name: file for name, file in source.files.items() if name.endswith(".py")}
    named, elsewhere = _named(source)
    warnings = [f"{source.label}: config.json names {name}, which is not there" for name in sorted(named - set(there))]
    notes: list[str] = []
    copied = there if copy and named else {}
    if copied:
        notes.append(f"code copied: {listed(copied, 20)}; it runs wherever the result is loaded with trust_remote_code")
    elif there:
        notes.append(f"not copied, because it is code: {listed(there)}" + (" (--copy-code)" if named else ""))
    if named and not copied:
        notes.append(f"{source.label} runs code of its own (auto_map in config.json); --copy-code if you trust it")
    if elsewhere:
        notes.append(f"{source.label} runs code of {listed(sorted(elsewhere))}, which stays there (auto_map)")
    return copied, warnings if copy else [], notes


def _named(source: Source) -> tuple[set[str], set[str]]:
    """The files that config and tokenizer take code from, and the other repositories that they take it from."""
    named: set[str] = set()
    elsewhere: set[str] = set()
    for reference in (*_references(source.config), *_references(_tokenizer_config(source))):
        repository, dashes, module = printable(reference).rpartition("--")
        if dashes:
            elsewhere.add(repository)
        else:
            named.add(module.partition(".")[0] + ".py")
    return named, elsewhere


def _references(config: Mapping[str, Any]) -> Iterator[str]:
    """What ``auto_map`` says: ``module.Class``, or ``repository--module.Class``; for tokenizers a pair of them."""
    entries: object = config.get("auto_map")
    for entry in cast("dict[str, object]", entries).values() if isinstance(entries, dict) else ():
        for reference in cast("list[object]", entry) if isinstance(entry, list) else [entry]:
            if isinstance(reference, str):
                yield reference


def _tokenizer_config(source: Source) -> Mapping[str, Any]:
    try:
        return parse_object(source.files[_TOKENIZER].read(), _TOKENIZER) if _TOKENIZER in source.files else {}
    except ModelError:  # who needs it says so
        return {}
