"""What a model is made of, from its headers and config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockmerge.architectures import Block, block_of, layer_of, module_order, vocabulary_tensors
from blockmerge.errors import listed
from blockmerge.planning import checks
from blockmerge.planning.explain import inspection_text
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["Inspection", "inspect_source"]


@dataclass(frozen=True)
class Inspection:
    """A model at a glance. ``str()`` prints it; :meth:`to_json` spells it out.

    ``tensors`` stand in module order (``order`` is ``table``) or in the natural order of their names (``natural``);
    ``ties`` maps names that share a stored tensor to its name; ``odd`` says what a person should know, a line each.
    """

    label: str
    architecture: str
    order: str
    tensors: tuple[TensorSpec, ...]
    ties: Mapping[str, str]
    vocabulary: Mapping[str, int]
    odd: tuple[str, ...]

    @property
    def dtypes(self) -> dict[str, int]:
        """Bytes by dtype."""
        sizes: dict[str, int] = {}
        for spec in self.tensors:
            sizes[spec.dtype.name] = sizes.get(spec.dtype.name, 0) + spec.nbytes
        return sizes

    @property
    def parameters(self) -> int:
        """Number of stored elements."""
        return sum(spec.elements for spec in self.tensors)

    @property
    def layers(self) -> int:
        """Number of layers that hold tensors."""
        return len({layer for spec in self.tensors if (layer := layer_of(spec.name)) is not None})

    @property
    def blocks(self) -> dict[Block, int]:
        """Bytes by block."""
        sizes: dict[Block, int] = {}
        for spec in self.tensors:
            block = block_of(spec.name)
            sizes[block] = sizes.get(block, 0) + spec.nbytes
        return sizes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.label,
            "architecture": self.architecture,
            "order": self.order,
            "parameters": self.parameters,
            "layers": self.layers,
            "dtypes": self.dtypes,
            "blocks": {block.value: size for block, size in self.blocks.items()},
            "ties": dict(self.ties),
            "vocabulary": dict(self.vocabulary),
            "odd": list(self.odd),
            "tensors": [
                {"name": spec.name, "dtype": spec.dtype.name, "shape": list(spec.shape), "bytes": spec.nbytes}
                for spec in self.tensors
            ],
        }

    def __str__(self) -> str:
        return inspection_text(self)


def inspect_source(source: Source) -> Inspection:
    """Look at an opened model. Unusable models are shown too, with the reason among ``odd``."""
    order = module_order(source.config, source.specs)
    stored = [name for name in (*order.names, *order.ignored) if name in source.specs]
    vocabulary = {name: source.specs[name].shape[0] for name in vocabulary_tensors(stored) if source.specs[name].shape}
    return Inspection(
        label=source.label,
        architecture=checks.architecture(source),
        order=order.source,
        tensors=tuple(source.specs[name] for name in stored),
        ties=dict(order.tied),
        vocabulary=vocabulary,
        odd=(*order.notes, *_odd(source, vocabulary, order.ignored)),
    )


def _odd(source: Source, vocabulary: Mapping[str, int], ignored: tuple[str, ...]) -> Iterator[str]:
    yield from source.remarks
    yield from (str(problem).removeprefix(f"{source.label}: ") for problem in checks.unusable(source))
    claimed: object = source.config.get("vocab_size")
    for name, rows in vocabulary.items():
        if isinstance(claimed, int) and claimed != rows:
            yield f"{name} has {rows} rows, config.json says vocab_size {claimed}"
    if ignored:
        yield f"transformers ignores on load: {listed(ignored)}"
    dtypes = {spec.result_dtype for spec in source.specs.values() if spec.dtype.floating}
    if len(dtypes) > 1:
        yield "several dtypes: " + ", ".join(sorted(dtype.name for dtype in dtypes))
