"""Merge methods: the equation of each, and the operations on tiles that carry it out."""

from __future__ import annotations

from blockmerge.methods.operations import Copy, Lerp, Operation, Original

__all__ = ["Copy", "Lerp", "Operation", "Original"]
