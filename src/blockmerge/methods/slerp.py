"""slerp: along the great circle between two models."""

from __future__ import annotations

from functools import partial

from blockmerge.methods import span
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sphere import SpanSum

__all__ = ["EXACT", "METHOD"]

EXACT = 1.0 - 1e-12
"""Nearer to parallel or opposite than this, the angle is lost in rounding."""
_LERP_ABOVE = {"exact": EXACT, "mergekit": 0.9995}


def _build(call: Call) -> Operation:
    t, above = call.number("t"), _LERP_ABOVE[str(call.values["variant"])]
    return SpanSum("slerp", (t, above), partial(span.slerp, t=t, lerp_above=above))


METHOD = Method(
    name="slerp",
    summary="Spherical interpolation of two models: t = 0 is the first, t = 1 the second.",
    equation="sin((1-t) a)/sin(a) W_1 + sin(t a)/sin(a) W_2, a = angle of the flattened tensors",
    paper="Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985",
    build=_build,
    parameters=(
        Parameter("t", "Place on the circle."),
        Parameter(
            "variant",
            "exact, or mergekit: linear where the cosine is above 0.9995.",
            default="exact",
            kind="choice",
            choices=("exact", "mergekit"),
        ),
    ),
    models=(2, 2),
)
