"""Which names of a model share one stored tensor, as transformers decides it on loading."""

from __future__ import annotations

from collections.abc import Mapping

from blockmerge.architectures import Order
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["Ties"]

_CHUNK = 1 << 20


class Ties:
    """The ties of one model; ``names`` maps each alias to the stored tensor that it shares.

    Where both are stored they are one tensor if they are equal, which transformers finds out too, and two if not.
    """

    def __init__(self, source: Source, order: Order) -> None:
        self._specs = source.specs
        self.names: dict[str, str] = {}
        self.notes: list[str] = []
        for alias, stored in order.tied.items():
            if alias not in source.specs:
                self.names[alias] = stored
            elif _equal(source, alias, stored):
                self.names[alias] = stored
                self.notes.append(f"{source.label} stores {alias} and {stored}, one tensor, twice; it counts once")
            else:
                self.notes.append(f"{alias} and {stored} differ in {source.label}, so they are not taken as tied")

    def aliases(self, stored: str) -> list[str]:
        """The names that share the stored tensor ``stored``."""
        return [alias for alias, name in self.names.items() if name == stored]

    def spec(self, name: str) -> TensorSpec | None:
        """The tensor that ``name`` stands for, through its tie."""
        specs: Mapping[str, TensorSpec] = self._specs
        return specs.get(self.names.get(name, name))


def _equal(source: Source, one: str, other: str) -> bool:
    """Whether two stored tensors hold the same bytes; stops at the first difference."""
    a, b = source.specs[one], source.specs[other]
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    step = _CHUNK // a.dtype.itemsize
    for first in range(0, a.elements, step):
        count = min(step, a.elements - first)
        found = [bytearray(count * a.dtype.itemsize) for _ in range(2)]
        for name, buffer in zip((one, other), found, strict=True):
            source.read_into(name, first, count, memoryview(buffer))
        if found[0] != found[1]:
            return False
    return True
