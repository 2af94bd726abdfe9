"""What can be done to a tile: plain numbers in a plan, and the kernels that they choose.

An operation is data until :meth:`Operation.bind` gives the function that runs it, so a plan can be printed, hashed and
sent elsewhere without numba.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import BF16, F16, F32, F64, DType

__all__ = [
    "GRANULE",
    "STEP",
    "Copy",
    "Lerp",
    "Measure",
    "Observe",
    "Operation",
    "Original",
    "Run",
    "Tally",
    "Whole",
    "precision_of",
    "whole_rows",
]

Array = NDArray[Any]
GRANULE = 1 << 19
"""Elements that a measuring pass looks at together, counted from the start of the tensor (or of its piece); where an
operation has rows, as many whole rows as that holds, but at least one."""
STEP = 1 << 16
"""Elements of a chunk, counted in the same way: tiles of operations that measure first begin with one."""
Run = Callable[[Sequence[Array], Array, int], bool]
"""Computes one tile: takes an array of encoded elements per operand, the array to fill, and the element of the tensor
at which both start. Says whether a value was not finite."""
Observe = Callable[[Sequence[Array], int], Array | None]
"""Looks at one granule: takes an array of encoded elements per operand, and the element at which they start. What it
gives is a new array; nothing, if it is :class:`Whole`."""


class Measure(ABC):
    """A pass over the operands before the one that computes, for what has to be known of the whole tensor.

    Its statistic has one more dimension than what an observer gives: if ``stacked``, one entry for each granule, in
    their order; else one entry, the sum over granules in that order. ``part``: of each granule it looks at the first
    ``1 / part``. ``spare``: it is there for rare tensors; for others it binds to nothing, and nothing is read.
    """

    @property
    def stacked(self) -> bool:
        """Whether granules are told apart in its statistic."""
        return False

    @property
    def part(self) -> int:
        """One over the part of each granule that is looked at."""
        return 1

    @property
    def spare(self) -> bool:
        """Whether it is seldom needed."""
        return False

    def memory(self, size: int) -> int:
        """Bytes of its statistic, about, where these grow with the operands, which have ``size`` bytes."""
        del size
        return 0

    @abstractmethod
    def bind(self, statistics: Sequence[Any]) -> Observe | None:
        """The function that looks at one granule, given what earlier passes measured; None if nothing is needed."""


class Whole(ABC):
    """An observer that keeps what it finds, and tells the statistic of its pass when all granules have been seen."""

    @abstractmethod
    def __call__(self, operands: Sequence[Array], first: int) -> None:
        """Look at one granule, on any thread."""

    @abstractmethod
    def total(self) -> Any:
        """The statistic, of whatever kind; it must not depend on the order in which granules came."""


class Tally(Whole):
    """Adds whole numbers to counts of its own: in any order their sum is the same.

    ``count`` takes what an observer takes, and an array int64 of ``shape`` to add to, one for each thread.
    """

    def __init__(self, shape: tuple[int, ...], count: Callable[[Sequence[Array], int, Array], object]) -> None:
        self._shape, self._count = shape, count
        self._guard = threading.Lock()
        self._counts: dict[int, Array] = {}

    def __call__(self, operands: Sequence[Array], first: int) -> None:
        """Count one granule."""
        me = threading.get_ident()
        if me not in self._counts:
            with self._guard:
                self._counts[me] = np.zeros(self._shape, np.int64)
        self._count(operands, first, self._counts[me])

    def total(self) -> Any:
        """The statistic: the counts of all threads, with a first dimension of one."""
        return sum(self._counts.values(), np.zeros(self._shape, np.int64))[None]


def whole_rows(elements: int, row: int) -> int:
    """The largest multiple of ``row`` within ``elements``; at least one."""
    return max(elements // row, 1) * row


class Operation(ABC):
    """One way to compute a tile from its operands.

    ``strict``: a value that is not finite is an error, unless the person allows it.
    """

    strict: ClassVar[bool] = True

    @property
    def measures(self) -> Sequence[Measure]:
        """Passes over the operands before the one that computes."""
        return ()

    @property
    def row(self) -> int:
        """Elements that must be seen together: tiles and granules hold whole rows of so many."""
        return 1

    @property
    def joined(self) -> Hashable | None:
        """What tensors that are measured together have in common: their statistics, counts all, are added up.

        None for tensors that are measured each by itself.
        """
        return None

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """The operation in plain values: what the plan prints and the digest covers."""

    @abstractmethod
    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """The function for operands and a result of these formats, given what was measured. Imports the kernels."""


def precision_of(dtypes: Sequence[DType], out: DType) -> Any:
    """The numpy type to compute in: float32, or float64 for float32 results and float64 inputs."""
    return np.float64 if out == F32 or F64 in dtypes else np.float32


@dataclass(frozen=True)
class Copy(Operation):
    """The operand, converted if the result has another format; integers and the like are copied as bytes."""

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "copy"}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Convert, or copy and look for values that are not finite."""
        from blockmerge import kernels

        (dtype,) = dtypes
        if dtype != out:
            return lambda operands, result, _: kernels.convert(operands[0], result)

        def copy(operands: Sequence[Array], result: Array, _first: int) -> bool:
            result[:] = operands[0]
            return dtype in _BLENDABLE and kernels.nonfinite(result)

        return copy


@dataclass(frozen=True)
class Lerp(Operation):
    """``(1 - ratio) a + ratio b``, rounded once; in float32, or float64 for float32 results and float64 inputs."""

    ratio: float

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "lerp", "ratio": self.ratio}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """In float32 where that holds everything, else in float64."""
        from blockmerge import kernels

        precision = precision_of(dtypes, out)
        w, v = precision(self.ratio), precision(1.0 - self.ratio)
        return lambda operands, result, _: kernels.lerp(operands[0], operands[1], result, w, v)


@dataclass(frozen=True)
class Original(Operation):
    """The original's blends, one after the other: ``a = (1 - ratio) a + ratio b`` for each step.

    A step is the ratio and the number of the operand that is ``b`` (1, or 2 if a tied tensor has two partners).
    ``load`` are the formats that transformers loads the two models in, ``work`` those they are blended in. Values that
    are not finite pass, as they do there.
    """

    strict: ClassVar[bool] = False

    steps: tuple[tuple[float, int], ...]
    load: tuple[DType, DType]
    work: tuple[DType, DType]

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "original",
            "steps": [list(step) for step in self.steps],
            "load": [dtype.name for dtype in self.load],
            "work": [dtype.name for dtype in self.work],
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Chain one kernel call per step, through a scratch tile in the format of model 1."""
        from blockmerge import kernels

        if not self.steps:
            return lambda operands, result, _: kernels.cast(operands[0], result, _type(self.load[0]))
        (load_a, load_b), (work_a, work_b) = map(_types, (self.load, self.work))
        work_sum = _type(self.work[0] if self.work[0] == self.work[1] else F32)
        steps = [(np.float32(1 - ratio), np.float32(ratio), operand) for ratio, operand in self.steps]

        def blend(operands: Sequence[Array], result: Array, _first: int) -> bool:
            a, loaded, bad = operands[0], load_a, False
            for k, (share_a, share_b, operand) in enumerate(steps):
                b, last = operands[operand], k == len(steps) - 1
                target = result if last else np.empty(result.size, self.work[0].storage)
                bad = kernels.original(a, b, target, loaded, load_b, work_a, work_b, work_sum, share_a, share_b)
                a, loaded = target, work_a
            return bad

        return blend


_BLENDABLE = (BF16, F16, F32, F64)


def _type(dtype: DType) -> Any:
    """A scalar that tells a kernel the format by its type."""
    return np.dtype(dtype.storage).type(0)


def _types(dtypes: tuple[DType, DType]) -> tuple[Any, Any]:
    return _type(dtypes[0]), _type(dtypes[1])
