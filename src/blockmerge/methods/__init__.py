"""Merge methods: a file each with declaration and equation, on a few families of operations.

:data:`METHODS` lists them by name, with those that other packages offer; :mod:`.plain` makes one of a numpy function.
"""

from __future__ import annotations

from blockmerge.methods import (
    arcee_fusion,
    breadcrumbs,
    consensus,
    dare,
    della,
    geometric_median,
    karcher,
    linear,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    sce,
    slerp,
    task_arithmetic,
    ties,
)
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Copy, Lerp, Operation, Original
from blockmerge.methods.plugins import Catalogue

__all__ = ["METHODS", "Call", "Copy", "Lerp", "Method", "Operation", "Original", "Parameter"]

METHODS = Catalogue(
    (
        arcee_fusion.METHOD,
        *breadcrumbs.METHODS,
        *consensus.METHODS,
        *dare.METHODS,
        *della.METHODS,
        geometric_median.METHOD,
        karcher.METHOD,
        linear.METHOD,
        model_stock.METHOD,
        multislerp.METHOD,
        nearswap.METHOD,
        nuslerp.METHOD,
        passthrough.METHOD,
        *ram.METHODS,
        sce.METHOD,
        slerp.METHOD,
        task_arithmetic.METHOD,
        ties.METHOD,
    )
)
