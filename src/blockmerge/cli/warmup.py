"""Importing numba takes as long as opening large models; do both at once."""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib import import_module

__all__ = ["warm_up"]


def warm_up() -> None:
    """Start importing the kernels in the background. The merge imports them again and meets any error there."""
    threading.Thread(target=_import_kernels, daemon=True).start()


def _import_kernels() -> None:
    with suppress(Exception):
        import_module("blockmerge.kernels")
