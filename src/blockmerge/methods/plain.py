"""Methods of one's own: a numpy function with a declaration.

    import numpy as np
    from blockmerge.methods import plain

    MEDIAN = plain.method(
        lambda tensors: np.median(tensors, axis=0),
        name="median",
        summary="The median of all models, element by element.",
        equation="median(W_1 ... W_n)",
        paper="none",
    )

A package offers it to Blockmerge through the entry-point group ``blockmerge.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.errors import RecipeError
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run, precision_of

__all__ = ["Function", "method"]

Floats = NDArray[Any]
Function = Callable[..., Floats]
"""Takes ``tensors``, an array (models, elements) of float32 or float64, and keywords; gives an array (elements,).

With ``scope="row"`` arrays are (models, rows, columns) and (rows, columns), rows being the last dimension of a tensor.
Keywords: the parameters by name (a tuple for those of each model); ``base``, an array like those of the models, where
the method has one; ``statistic``, where it measures first.
"""


def method(
    function: Function,
    *,
    name: str,
    summary: str,
    equation: str,
    paper: str,
    parameters: Sequence[Parameter] = (),
    base: Literal["none", "optional", "required"] = "none",
    models: tuple[int, int | None] = (1, None),
    scope: Literal["element", "row"] = "element",
    measure: Function | None = None,
) -> Method:
    """A merge method that ``function`` computes; it sees a tensor in parts, of any size, in any order, on any thread.

    :param scope: ``row`` if it has to see whole rows.
    :param measure: a function of the same arguments that is called first for every part of a tensor, always the same
        ones; the sum of what it returns for all parts (a float64 array) comes back as ``statistic``.

    The other parameters are those of :class:`~blockmerge.methods.Method`.
    """

    def build(call: Call) -> Operation:
        columns = call.shape[-1] if scope == "row" and call.shape else 1
        given = {**call.values, **call.per_model}
        return PlainOperation(name, function, measure, tuple(given.items()), max(columns, 1), call.has_base)

    return Method(
        name=name,
        summary=summary,
        equation=equation,
        paper=paper,
        build=build,
        parameters=tuple(parameters),
        base=base,
        models=models,
    )


@dataclass(frozen=True)
class PlainOperation(Operation):
    """``function`` of decoded operands, the base first if there is one; ``columns`` is 1 for single elements."""

    method: str
    function: Function
    measure: Function | None
    given: tuple[tuple[str, Any], ...]
    columns: int
    base: bool

    @property
    def measures(self) -> Sequence[Measure]:
        """One pass, if the method measures."""
        return () if self.measure is None else (_Summed(self),)

    @property
    def row(self) -> int:
        """Elements that the function must see together."""
        return self.columns

    def numbers(self) -> dict[str, Any]:
        """The plain values; the function by its module and name."""
        where = f"{self.function.__module__}.{self.function.__qualname__}"
        return {"kind": "plain", "method": self.method, "function": where, **dict(self.given)}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Decode, call, round once."""
        from blockmerge.kernels import sums

        precision = precision_of(dtypes, out)
        more = {"statistic": statistics[0][0]} if self.measure is not None else {}

        def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
            found = self.called(self.function, operands, precision, more)
            if found.size != result.size:
                raise RecipeError(f"{self.method}: its function gave {found.size} elements for {result.size}")
            return sums.store(np.ascontiguousarray(found, precision).reshape(-1), result)

        return run

    def called(self, function: Function, operands: Sequence[Array], precision: Any, more: dict[str, Any]) -> Floats:
        """What a function gives for these operands. Its exceptions become one line."""
        from blockmerge.kernels import sums

        shape = (-1, self.columns) if self.columns > 1 else (-1,)
        tensors = np.empty((len(operands), operands[0].size), precision)
        for tensor, operand in zip(tensors, operands, strict=True):
            sums.numbers(operand, tensor)
        tensors = tensors.reshape(len(operands), *shape)
        if self.base:
            more, tensors = {**more, "base": tensors[0]}, tensors[1:]
        try:
            return np.asarray(function(tensors, **dict(self.given), **more))
        except Exception as error:  # somebody else's code
            raise RecipeError(f"{self.method}: its function fails: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Summed(Measure):
    """The pass in which a method of one's own measures."""

    operation: PlainOperation

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Its function, in float64."""
        del statistics
        function = self.operation.measure
        assert function is not None

        def observe(operands: Sequence[Array], _first: int) -> Floats:
            return self.operation.called(function, operands, np.float64, {}).astype(np.float64)

        return observe
