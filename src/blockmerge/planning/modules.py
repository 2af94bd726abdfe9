"""The parts of a composite model: which tensors belong to its language model, vision tower, projector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["assigned"]

_KINDS: Final = (
    (
        "multi_modal_projector",
        re.compile(r"multi_?modal|projector|merger|connector|aligner|perceiver|qformer|(?:^|\.)mm_"),
    ),
    ("vision_tower", re.compile(r"vision|visual|image|patch_embed|vqmodel")),
    ("audio_tower", re.compile(r"audio|speech|acoustic")),
    ("encoder", re.compile(r"^(?:model\.)?encoder\.")),
    ("decoder", re.compile(r"^(?:model\.)?decoder\.")),
    ("shared", re.compile(r"^shared\.")),
)
_ALIASES: Final = {"vision_model": "vision_tower", "visual": "vision_tower", "language_model": "text_decoder"}
_REST: Final = ("text_decoder", "decoder", "default", "")
"""Modules that take what is nobody else's, the first that there is."""


def assigned(modules: Sequence[str], names: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The ``names`` of each of ``modules``, in their order, and those of none.

    A module is named by its kind, or by what its tensors' names begin with.
    """
    found: dict[str, list[str]] = {module: [] for module in modules}
    left: list[str] = []
    for name in names:
        module = _module(modules, name)
        (left if module is None else found[module]).append(name)
    return found, left


def _module(modules: Sequence[str], name: str) -> str | None:
    if prefix := max((module for module in modules if module and name.startswith(f"{module}.")), key=len, default=None):
        return prefix
    kind = next((kind for kind, pattern in _KINDS if pattern.search(name.lower())), None)
    if kind is not None:
        named = next((module for module in modules if _ALIASES.get(module, module) == kind), None)
        if named is not None or ("default" not in modules and "" not in modules):
            return named
    known = {_ALIASES.get(module, module): module for module in modules}
    return next((known[rest] for rest in _REST if rest in known), None)
