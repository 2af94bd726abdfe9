"""karcher: the Riemannian centre of mass of the models' directions."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sphere import SpanSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    iterations, tolerance = int(call.number("max_iter")), call.number("tol")
    solve = partial(span.karcher_mean, iterations=iterations, tolerance=tolerance)
    return SpanSum("karcher", (iterations, tolerance), solve)


METHOD = Method(
    name="karcher",
    summary="Karcher mean on the sphere, times the mean length.",
    equation="m with sum(log_m(u_i)) = 0, times mean |W_i|; u_i = W_i / |W_i|",
    paper="arXiv:2603.04972",
    build=_build,
    parameters=(
        Parameter("max_iter", "Iterations at most.", default=10.0, low=1, high=10_000),
        Parameter("tol", "Stop when a step is shorter.", default=1e-5, low=0),
    ),
    symmetric=True,
)
