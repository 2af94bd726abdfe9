"""model_stock: how far to go from the base towards the average, from the angles between finetunes."""

from __future__ import annotations

from functools import partial

import numpy as np

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.lines import RowSum
from blockmerge.methods.operations import Operation
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _shares(gram: span.Floats, *, extrapolate: bool) -> span.Floats:
    count = gram.shape[-1]
    return np.repeat(span.stock(gram, extrapolate=extrapolate)[..., None] / count, count, axis=-1)


def _build(call: Call) -> Operation:
    extrapolate = call.values["variant"] == "mergekit"
    solve = partial(_shares, extrapolate=extrapolate)
    if call.flag("filter_wise") and len(call.shape) > 1:
        return RowSum("model_stock", (float(extrapolate),), solve, base=True, length=call.row())
    return SpanSum("model_stock", (float(extrapolate),), solve, base=True)


METHOD = Method(
    name="model_stock",
    summary="Between base and average, at the ratio that the angles of the task vectors ask for.",
    equation="B + t mean(W_i - B), t = N c / (1 + (N - 1) c), c = mean cosine of the task vectors",
    paper="arXiv:2403.19522",
    build=_build,
    parameters=(
        Parameter(
            "variant",
            "paper: the base where the mean cosine is negative; mergekit: go on in the formula, away from the base.",
            default="paper",
            kind="choice",
            choices=("paper", "mergekit"),
        ),
        Parameter("filter_wise", "A ratio for each row, not one for the tensor.", default=False, kind="flag"),
    ),
    base="required",
    models=(2, None),
    symmetric=True,
)
