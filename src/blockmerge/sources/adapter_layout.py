"""Which tensors of a model an adapter changes, and how: from the names and shapes that both declare.

PEFT names a tensor ``base_model.model.`` + the path of a module + what it is: ``lora_A.weight``, ``lora_B.weight``,
``lora_embedding_A``, ``lora_embedding_B``, ``lora_magnitude_vector``, or a parameter that is replaced as a whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from blockmerge import dtypes
from blockmerge.errors import BlockmergeError, MismatchError, listed, raise_all
from blockmerge.sources.adapter_config import AdapterConfig
from blockmerge.tensors import TensorSpec

__all__ = ["Layout", "Product", "lay_out_adapter"]

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(\.default)?(\.weight)?"
)
_WRAPPER = re.compile(r"\.(base_layer|modules_to_save(\.default)?|original_module)(?=\.)")
_LINEAR, _EMBEDDING = ("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")
_MAGNITUDE = "lora_magnitude_vector"
_HEADS = ("lm_head", "embed_out")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_INPUTS_FIRST = {"gpt2", "openai-gpt", "imagegpt"}
"""Models whose layers are transformers' Conv1D, with the weight of a layer stored inputs first."""
_NUMBERS = (*dtypes.OUTPUT_DTYPES, dtypes.F64)


@dataclass(frozen=True, slots=True)
class Product:
    """A tensor plus ``scaling`` times the product of two adapter tensors.

    ``a`` (rank, inputs) and ``b`` (outputs, rank) are names in the adapter. The product is B A, or its transpose with
    ``inputs_first``. ``magnitude`` (outputs,), if any, is the length that DoRA gives to the weights of each output.
    """

    a: str
    b: str
    rank: int
    scaling: float
    inputs_first: bool
    magnitude: str | None


@dataclass
class Layout:
    """``specs`` are the tensors of the adapted model.

    ``products`` maps names to what is added to them; ``replaced`` names to those of the adapter's tensors that take
    their place, before a product is added; ``origins`` names that the base does not store to the tensor they stand for.
    ``vocabulary`` is its new number of rows; ``untied`` tells that a tied head is a tensor of its own now.
    """

    specs: dict[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])
    products: dict[str, Product] = field(default_factory=dict[str, Product])
    replaced: dict[str, str] = field(default_factory=dict[str, str])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    vocabulary: int | None = None
    untied: bool = False


def lay_out_adapter(
    tensors: Mapping[str, TensorSpec],
    options: AdapterConfig,
    base: Mapping[str, TensorSpec],
    config: Mapping[str, Any],
    label: str,
) -> Layout:
    """Match the adapter's ``tensors`` with those of its ``base``.

    Raises :class:`MismatchError`, all problems at once: tensors that belong to nothing, shapes that do not fit.
    """
    return _Matcher(tensors, options, base, config, label).run()


class _Matcher:
    def __init__(
        self,
        tensors: Mapping[str, TensorSpec],
        options: AdapterConfig,
        base: Mapping[str, TensorSpec],
        config: Mapping[str, Any],
        label: str,
    ) -> None:
        self.tensors, self.options, self.base, self.config, self.label = tensors, options, base, config, label
        self.firsts = sorted({name.partition(".")[0] for name in base})
        self.layout = Layout(specs=dict(base))
        self.problems: list[BlockmergeError] = []
        self.lost: list[str] = []
        self.taken: dict[str, str] = {}

    def run(self) -> Layout:
        modules, whole = self._sorted()
        self.options.check_patterns(modules, self.label)
        for key, path in whole.items():
            self._replace(key, path)
        for module, parts in modules.items():
            self._add(module, parts)
        if self.lost:
            self._refuse(
                f"{len(self.lost)} of its tensors belong to nothing in the base, or are of a kind that is not read: "
                f"{listed(self.lost, 3)}; is it an adapter of this model?"
            )
        if not modules and not whole:
            self._refuse("holds no tensors")
        raise_all(self.problems)
        self._keep_tied_head()
        self.layout.untied = self._unties()
        return self.layout

    def _refuse(self, text: str) -> None:
        self.problems.append(MismatchError(f"{self.label}: {text}"))

    def _sorted(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """The adapter's tensors by module and part, and those that stand for whole parameters with their paths."""
        modules: dict[str, dict[str, str]] = {}
        whole: dict[str, str] = {}
        for key in self.tensors:
            path = key.removeprefix(_PREFIX)
            match = _PART.fullmatch(path)
            if path == key:
                self.lost.append(key)
            elif match is None:
                whole[key] = _WRAPPER.sub("", path)
            elif match["part"] in (parts := modules.setdefault(match["module"], {})):
                self._refuse(f"{key} is there twice, also as {parts[match['part']]}")
            else:
                parts[match["part"]] = key
        return modules, whole

    # ---- names -------------------------------------------------------------------------------------------------------

    def _find(self, path: str, key: str) -> str | None:
        """The name under which the base stores ``path``; a tensor that is lost or claimed twice is noted as such.

        Checkpoints carry the name of the inner model (``model.``, ``transformer.``) in front or leave it out, and
        transformers loads both; so does this, if only one tensor can be meant.
        """
        found = next((names for names in self._spellings(path) if names), list[str]())
        if len(found) > 1:
            self._refuse(f"{key} may belong to {' or to '.join(found)}")
            return None
        name = found[0] if found else self._tied_head(path)
        if name is None:
            self.lost.append(key)
        return name

    def _spellings(self, path: str) -> Iterator[list[str]]:
        """Names of the base that may be meant by ``path``, the likelier ones first."""
        yield [name for name in (path,) if name in self.base]
        yield [name for name in (f"{first}.{path}" for first in self.firsts) if name in self.base]
        yield [name for name in (path.partition(".")[2],) if name in self.base]
        swapped = re.sub(r"^model\.language_model\.", "language_model.model.", path)
        yield [name for name in (swapped,) if name in self.base]

    def _tied_head(self, path: str) -> str | None:
        """The name of a head that the base does not store because it is the embedding."""
        module, _, parameter = path.rpartition(".")
        embedding = self._embedding()
        if module not in _HEADS or parameter != "weight" or embedding is None:
            return None
        self.layout.origins[path] = embedding
        return path

    def _embedding(self) -> str | None:
        found = [name for name in self.base if name.endswith(_EMBEDDINGS)]
        return found[0] if len(found) == 1 else None

    def _claimed(self, name: str, key: str) -> bool:
        """Note that ``key`` is for ``name``; False if another key was."""
        if name in self.taken:
            self._refuse(f"{key} and {self.taken[name]} are both for {name}")
            return False
        self.taken[name] = key
        return True

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def _replace(self, key: str, path: str) -> None:
        """Put the adapter's tensor ``key`` in the place of the parameter ``path``."""
        name = self._find(path, key)
        if name is None or not self._claimed(name, key):
            return
        stored, own = self.base[self.layout.origins.get(name, name)], self.tensors[key]
        if stored.dtype not in _NUMBERS or own.dtype not in _NUMBERS:
            self._refuse(f"{key} is {own.dtype}, {name} is {stored.dtype}; only floating numbers of 16 to 64 bits go")
        elif stored.shape != own.shape:
            self._resize(key, name, stored, own)
        self.layout.replaced[name] = key
        self.layout.specs[name] = TensorSpec(name, own.dtype, own.shape, home=stored.dtype)

    def _resize(self, key: str, name: str, stored: TensorSpec, own: TensorSpec) -> None:
        """A vocabulary may have grown; nothing else may have another shape."""
        rows = own.shape[0] if own.shape else 0
        vocabulary = name.endswith(_EMBEDDINGS) or name.removesuffix(".weight").rpartition(".")[2] in _HEADS
        if (
            not vocabulary
            or not rows
            or stored.shape[1:] != own.shape[1:]
            or self.layout.vocabulary not in (None, rows)
        ):
            self._refuse(f"{key} is {list(own.shape)}, {name} in the base {list(stored.shape)}")
            return
        self.layout.vocabulary = rows
        self.layout.notes.append(f"{name} has {rows} rows in the adapter, {stored.shape[0]} in its base")

    def _add(self, module: str, parts: Mapping[str, str]) -> None:
        """Add the product of ``module``."""
        a, b = _EMBEDDING if _EMBEDDING[0] in parts else _LINEAR
        expected = {a, b, _MAGNITUDE} if self.options.use_dora else {a, b}
        if set(parts) != expected:
            self._refuse(f"{module} has {listed(sorted(parts))}, not {listed(sorted(expected))}")
            return
        name = self._find(f"{module}.weight", parts[a])
        if name is None:
            self.lost += [parts[part] for part in sorted(expected - {a})]
            return
        claimed = self.taken.get(name)
        if claimed is not None and claimed not in self.layout.replaced.values():
            self._refuse(f"{parts[a]} and {claimed} are both for {name}")
            return
        self.taken[name] = parts[a]
        self._multiply(module, name, {part: self.tensors[key] for part, key in parts.items()}, (a, b))

    def _multiply(self, module: str, name: str, parts: Mapping[str, TensorSpec], names: tuple[str, str]) -> None:
        spec = self.layout.specs.get(name) or self.base[self.layout.origins[name]]
        a, b = (parts[part] for part in names)
        rank, dora = self.options.rank_of(module), parts.get(_MAGNITUDE)
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        if len(a.shape) != 2 or len(b.shape) != 2 or len(spec.shape) != 2:
            self._refuse(f"{module}: {shapes} for {name} of {list(spec.shape)}; only matrices are adapted")
            return
        if (a.shape[0], b.shape[1]) != (rank, rank):
            self._refuse(f"{module}: {shapes} are not of rank {rank}, which adapter_config.json gives it")
            return
        inputs, outputs = a.shape[1], b.shape[0]
        ways = {False: (outputs, inputs), True: (inputs, outputs)}
        fitting = [first for first in ((True,) if names == _EMBEDDING else ways) if spec.shape == ways[first]]
        if not fitting:
            self._refuse(f"{module}: {shapes} give {[outputs, inputs]}, but {name} is {list(spec.shape)}")
            return
        if dora is not None and math.prod(dora.shape) != outputs:
            self._refuse(f"{module}: its magnitudes are {list(dora.shape)}, not [{outputs}]")
            return
        if odd := [part for part in (spec, *parts.values()) if part.dtype not in _NUMBERS]:
            self._refuse(f"{odd[0].name} is {odd[0].dtype}; only floating numbers of 16 to 64 bits are adapted")
            return
        first = fitting[0] if len(fitting) == 1 else self._square_has_inputs_first(module)
        scaling = self.options.scaling_of(module)
        magnitude = None if dora is None else dora.name
        self.layout.products[name] = Product(a.name, b.name, rank, scaling, first, magnitude)
        self.layout.specs[name] = TensorSpec(name, dtypes.F32, spec.shape, home=spec.result_dtype)

    def _square_has_inputs_first(self, module: str) -> bool:
        """Which way round a square weight is stored: its shape does not tell, the kind of its module does."""
        if self.config.get("model_type") in _INPUTS_FIRST:
            return module not in _HEADS
        return self.options.fan_in_fan_out

    # ---- ties --------------------------------------------------------------------------------------------------------

    def _keep_tied_head(self) -> None:
        """A head that was the embedding stays what it was when only the embedding is adapted, as in peft."""
        embedding = self._embedding()
        if embedding is None or embedding not in self.taken or self.options.ensure_weight_tying:
            return
        head = "embed_out.weight" if embedding.endswith("embed_in.weight") else "lm_head.weight"
        if (
            head in self.layout.specs
            or any(name.endswith(f".{head}") for name in self.base)
            or not _has_head(self.config)
        ):
            return
        self.layout.origins[head] = embedding
        self.layout.specs[head] = replace(self.base[embedding], name=head)
        self.layout.notes.append(f"only the embedding is adapted, so {head}, tied to it in the base, is one of its own")

    def _unties(self) -> bool:
        """Whether head and embedding are two tensors now. If both are replaced as a whole, they may be equal still."""
        both = [name for origin in self.layout.origins.items() for name in origin]
        whole = self.layout.replaced.keys() - self.layout.products.keys()
        return bool(both) and not self.options.ensure_weight_tying and not whole.issuperset(both)


def _has_head(config: Mapping[str, Any]) -> bool:
    named: object = config.get("architectures")
    names = cast("list[object]", named) if isinstance(named, list) else []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names)
