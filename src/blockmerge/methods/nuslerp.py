"""nuslerp: slerp with a weight for each model, and with task vectors if there is a base."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.slerp import EXACT
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    t = call.each("weight")[1] / call.total("weight")
    return SpanSum("nuslerp", (t,), partial(span.slerp, t=t, lerp_above=EXACT), base=call.has_base)


METHOD = Method(
    name="nuslerp",
    summary="Spherical interpolation by weights; of task vectors, if there is a base.",
    equation="slerp(W_1, W_2; t = w_2 / (w_1 + w_2)), or B + slerp(W_1 - B, W_2 - B; t)",
    paper="none; see slerp",
    build=_build,
    parameters=(Parameter("weight", "Share of a model.", per_model=True),),
    base="optional",
    models=(2, 2),
    symmetric=True,
)
