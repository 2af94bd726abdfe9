"""nuslerp: slerp with a weight for each model, and with task vectors if there is a base."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.lines import ColumnSum, RowSum
from blockmerge.methods.operations import Operation
from blockmerge.methods.slerp import EXACT
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    t = call.each("weight")[1] / call.total("weight")
    solve = partial(span.slerp, t=t, lerp_above=EXACT)
    if call.flag("nuslerp_flatten") or len(call.shape) < 2:
        return SpanSum("nuslerp", (t,), solve, base=call.has_base)
    if call.flag("nuslerp_row_wise"):
        return ColumnSum("nuslerp", (t,), solve, base=call.has_base, columns=call.row(first=True))
    return RowSum("nuslerp", (t,), solve, base=call.has_base, length=call.row())


METHOD = Method(
    name="nuslerp",
    summary="Spherical interpolation by weights; of task vectors, if there is a base.",
    equation="slerp(W_1, W_2; t = w_2 / (w_1 + w_2)), or B + slerp(W_1 - B, W_2 - B; t)",
    paper="none; see slerp",
    build=_build,
    parameters=(
        Parameter("weight", "Share of a model.", per_model=True),
        Parameter("nuslerp_flatten", "One angle for the tensor, not one for each row.", default=True, kind="flag"),
        Parameter(
            "nuslerp_row_wise",
            "Without nuslerp_flatten: an angle for each column, which is what this means in mergekit.",
            default=False,
            kind="flag",
        ),
    ),
    base="optional",
    models=(2, 2),
    symmetric=True,
)
