"""geometric_median: an average that one outlier cannot carry away."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    weights, iterations, tolerance = call.each("weight"), int(call.number("max_iter")), call.number("tol")
    solve = partial(span.geometric_median, weights=weights, iterations=iterations, tolerance=tolerance)
    return SpanSum("geometric_median", (*weights, iterations, tolerance), solve)


METHOD = Method(
    name="geometric_median",
    summary="The point with the least sum of distances to the models.",
    equation="argmin_m sum(w_i |W_i - m|)",
    paper="Vardi and Zhang, The multivariate L1-median and associated data depth, PNAS 97 (2000)",
    build=_build,
    parameters=(
        Parameter("weight", "Weight of a model's distance.", default=1.0, per_model=True, low=0),
        Parameter("max_iter", "Iterations at most.", default=100.0, low=1, high=100_000),
        Parameter("tol", "Stop when a step is shorter, as a share of the longest model.", default=1e-7, low=0),
    ),
    symmetric=True,
)
