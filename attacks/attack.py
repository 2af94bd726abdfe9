"""What an attack is, and the means of those who make hostile files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockmerge.demo.measure import MODELS

__all__ = ["ATTACKS", "GRADIENT", "MERGE", "PLAN", "Attack", "attack", "good_models", "header", "save_json"]

GRADIENT = ("gradient", "first", "second", "out", "--values", "0.5", "--quiet")
PLAN = ("plan", "recipe.yaml")
MERGE = ("merge", "recipe.yaml", "out", "--quiet")


@dataclass(frozen=True)
class Attack:
    """What is hostile, the function that makes it in a folder with two good models, and the command that meets it."""

    kind: str
    what: str
    make: Callable[[Path], object]
    command: tuple[str, ...]


ATTACKS: list[Attack] = []


def attack(what: str, command: tuple[str, ...] = GRADIENT) -> Callable[[Callable[[Path], object]], Attack]:
    """Enter a function that makes a hostile file into the list."""

    def enter(make: Callable[[Path], object]) -> Attack:
        ATTACKS.append(Attack(make.__module__.rpartition(".")[2], what, make, command))
        return ATTACKS[-1]

    return enter


def good_models(folder: Path) -> None:
    """The demo's two models as ``first`` and ``second``, and a secret beside them."""
    for name, kind in (("first", "code"), ("second", "prose")):
        shutil.copytree(MODELS[kind], folder / name)
    (folder / "secret").write_text("license: a secret\n", "utf-8")


def header(folder: Path, entries: dict[str, Any] | bytes, data: int = 0, length: int | None = None) -> None:
    """Give ``second`` weights with this header, as JSON or as text, and ``data`` zero bytes behind it."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    length = len(text) if length is None else length
    (folder / "second" / "model.safetensors").write_bytes(length.to_bytes(8, "little") + text + bytes(data))


def save_json(path: Path, content: Any) -> None:
    """Write ``content`` into the file at ``path``."""
    path.write_text(json.dumps(content), "utf-8")
