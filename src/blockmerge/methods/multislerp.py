"""multislerp: barycentric interpolation on a sphere, in one step."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    weights = call.weights(normalize=call.flag("normalize_weights"))
    return SpanSum("multislerp", weights, partial(span.tangent_mean, weights=weights), base=call.has_base)


METHOD = Method(
    name="multislerp",
    summary="Mean of directions in the tangent space at their weighted mean, times the mean length.",
    equation="exp_m(sum(w_i (u_i - (u_i m) m))) sum(w_i |W_i|), u_i = W_i / |W_i|, m = direction of sum(w_i u_i)",
    paper="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    build=_build,
    parameters=(
        Parameter("weight", "Share of a model.", per_model=True),
        Parameter("normalize_weights", "Divide weights by their sum.", default=True, kind="flag"),
    ),
    base="optional",
    symmetric=True,
)
