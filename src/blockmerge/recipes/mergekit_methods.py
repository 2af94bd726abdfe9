"""What the methods of mergekit 0.1.5 take: names, defaults, and whether a model may have a value of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["BASELESS", "HARMLESS", "METHOD_PARAMETERS", "REPAIRED", "Scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """One parameter; ``default`` None means that mergekit has none either."""

    default: float | bool | None
    shared: bool = True


def _each(default: float | None) -> Scope:
    return Scope(default, shared=False)


_WEIGHT: Final = {"weight": _each(None)}
_VECTORS: Final = {**_WEIGHT, "lambda": Scope(1.0), "normalize": Scope(False)}
_THINNED: Final = {**_VECTORS, "density": _each(1.0), "rescale": Scope(False)}
_RESCALED: Final = {**_THINNED, "rescale": Scope(True)}
_BREADCRUMBS: Final = {**_THINNED, "gamma": _each(0.01)}
_DELLA: Final = {**_RESCALED, "epsilon": _each(0.15)}

METHOD_PARAMETERS: Final[Mapping[str, Mapping[str, Scope]]] = {
    "arcee_fusion": {},
    "breadcrumbs": _BREADCRUMBS,
    "breadcrumbs_ties": _BREADCRUMBS,
    "dare_linear": _RESCALED,
    "dare_ties": _RESCALED,
    "della": {**_DELLA, "normalize": Scope(True)},
    "della_linear": _DELLA,
    "karcher": {"max_iter": Scope(10.0), "tol": Scope(1e-5)},
    "linear": {**_WEIGHT, "normalize": Scope(True)},
    "model_stock": {"filter_wise": Scope(False)},
    "multislerp": {**_WEIGHT, "normalize_weights": Scope(True)},
    "nearswap": {"t": Scope(None)},
    "nuslerp": {**_WEIGHT, "nuslerp_flatten": Scope(True), "nuslerp_row_wise": Scope(False)},
    "passthrough": {"scale": _each(1.0)},
    "ram": {"epsilon": Scope(1e-5)},
    "ramplus_tl": {"epsilon": Scope(1e-5), "r": Scope(0.1), "alpha": Scope(0.2)},
    "sce": {"select_topk": Scope(1.0)},
    "slerp": {"t": Scope(None)},
    "task_arithmetic": _VECTORS,
    "ties": {**_THINNED, "normalize": Scope(True)},
}

_MASK: Final = ("int8_mask",)
HARMLESS: Final[Mapping[str, tuple[str, ...]]] = {
    "breadcrumbs": _MASK,
    "breadcrumbs_ties": _MASK,
    "dare_linear": _MASK,
    "dare_ties": _MASK,
    "della": _MASK,
    "della_linear": _MASK,
    "multislerp": ("eps",),
    "sce": _MASK,
    "task_arithmetic": (*_MASK, "density", "rescale"),
    "ties": _MASK,
}
"""Parameters that are accepted and change nothing: masks of int8 save memory that we do not take, ``eps`` guards a
division that we do not need to guard, and task_arithmetic ignores two of them in mergekit too."""

BASELESS: Final = ("karcher", "linear", "passthrough")
"""Methods to which base_model means nothing but the lender of config and tokenizer."""

REPAIRED: Final = ("model_stock", "sce")
"""Methods whose ``variant: mergekit`` is a bug of mergekit's, not what its documents say."""
