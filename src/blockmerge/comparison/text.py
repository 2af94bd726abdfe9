"""A comparison as plain text: layers down, blocks across, then the tensors that differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from blockmerge.errors import listed

if TYPE_CHECKING:
    from blockmerge.comparison.difference import Difference, Statistics, TensorDifference

__all__ = ["difference_text", "percent"]

_BARS = " ▁▂▃▄▅▆▇█"
_MOST = 10


def difference_text(found: Difference, by: Literal["layer", "tensor"] = "layer") -> str:
    """The whole text; ``by`` tensor lists every tensor in module order instead of the table and the first ten."""
    lines = [f"{found.models[1]} against {found.models[0]}, the L2 norm of the difference over that of model 1", ""]
    if by == "layer":
        lines += [*_table(found), "", *_top(found)]
    else:
        lines += _tensors(found.tensors)
    return "\n".join([*lines, "", *_summary(found)])


def percent(value: float | None) -> str:
    """A relative difference for people, in some three digits."""
    if value is None:
        return "undefined"
    size = 100 * value
    if size == 0:
        return "0%"
    if 0.01 <= size < 9999.5:
        return f"{size:.3f}%" if size < 1 else f"{size:.2f}%" if size < 10 else f"{size:.1f}%"
    return f"{size:.1e}%"


# --- Layers and blocks ----------------------------------------------------------------------------------------------


def _table(found: Difference) -> Iterator[str]:
    """A line for each layer, one for what is outside them, one for all."""
    blocks, cells = found.blocks, found.cells
    largest = max((cell.relative or 0.0 for cell in cells.values()), default=0.0)
    yield "  ".join(["layer", *(f"{block.value:>11}" for block in blocks), f"{'all':>11}"])
    for layer, whole in found.layers.items():
        yield _line(f"{layer:>5}", [*(cells.get((layer, block)) for block in blocks), whole], largest)
    if any(layer is None for layer, _ in cells):
        yield _line(f"{'none':>5}", [cells.get((None, block)) for block in blocks], largest)
    yield _line(f"{'all':>5}", [*blocks.values(), found.whole], largest)


def _line(head: str, cells: Sequence[Statistics | None], largest: float) -> str:
    return "  ".join([head, *(_cell(cell, largest) for cell in cells)]).rstrip()


def _cell(cell: Statistics | None, largest: float) -> str:
    """The number, and a bar on the scale of the largest cell; even a small difference shows."""
    if cell is None:
        return f"{'':>11}"
    share = (cell.relative or 0.0) / largest if largest else 0.0
    bar = _BARS[min(len(_BARS) - 1, max(int(cell.differing > 0), round(share * (len(_BARS) - 1))))]
    return f"{percent(cell.relative):>9} {bar}"


# --- Tensors --------------------------------------------------------------------------------------------------------


def _top(found: Difference) -> list[str]:
    """The tensors that differ most; of equal ones the first."""
    differing = [tensor for tensor in found.tensors if tensor.statistics.differing]
    most = sorted(differing, key=lambda tensor: -_size(tensor))[:_MOST]
    return _tensors(most) if most else ["no tensor differs"]


def _size(tensor: TensorDifference) -> float:
    relative = tensor.statistics.relative
    return float("inf") if relative is None else relative


def _tensors(tensors: Sequence[TensorDifference]) -> list[str]:
    head = f"{'pos':>4} {'relative':>9} {'cosine':>9} {'differing':>9} {'largest':>9}  tensor"
    return [head, *map(_tensor, tensors)]


def _tensor(tensor: TensorDifference) -> str:
    found, pair = tensor.statistics, tensor.pair
    numbers = [f"{'-':>9}"] * 2
    largest = f"{'-':>9}"
    if pair.numeric:
        cosine = "-" if found.cosine is None else f"{found.cosine:.6f}"
        numbers, largest = [f"{percent(found.relative):>9}", f"{cosine:>9}"], f"{found.largest:>9.3g}"
    place = "" if tensor.place is None else f", largest at {list(tensor.place)}"
    formats = dict.fromkeys((pair.first.dtype.name, pair.second.dtype.name))
    text = " ".join([f"{pair.position:>4}", *numbers, f"{found.share:>9.2%}", largest])
    return f"{text}  {pair.name} {list(pair.shape)} {'/'.join(formats)}{place}{_nonfinite(found)}"


def _nonfinite(found: Statistics) -> str:
    if not any(found.nonfinite):
        return ""
    return f", not finite: {found.nonfinite[0]} in model 1, {found.nonfinite[1]} in model 2"


# --- In all ---------------------------------------------------------------------------------------------------------


def _summary(found: Difference) -> Iterator[str]:
    whole = found.whole
    equal = sum(not tensor.statistics.differing for tensor in found.tensors)
    cosine = "" if whole.cosine is None else f", cosine {whole.cosine:.6f}"
    yield (
        f"{len(found.tensors)} tensors compared, {equal} of them equal; {whole.differing:,} of {whole.elements:,} "
        f"elements differ ({whole.share:.2%}); in all {percent(whole.relative)}{cosine}{_nonfinite(whole)}"
    )
    for names, model in ((found.only_first, found.models[0]), (found.only_second, found.models[1])):
        if names:
            yield f"only in {model}: {len(names)} tensors: {listed(names)}"
    if found.unlike:
        texts = [f"{name} ({reason})" for name, reason in found.unlike.items()]
        yield f"not compared: {len(texts)} tensors: {listed(texts)}"
    for note in found.notes:
        yield f"note: {note}"
