"""From a recipe and opened inputs to a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockmerge import dtypes
from blockmerge.dtypes import F16, DType
from blockmerge.errors import BlockmergeError, RecipeError, listed, raise_all
from blockmerge.formats.jsonfile import read_object
from blockmerge.methods import Copy, Lerp, Operation, Original
from blockmerge.planning import checks
from blockmerge.planning.combine import combine
from blockmerge.planning.layout import lay_out
from blockmerge.planning.pairing import Step, Target, pair, shape_summary
from blockmerge.planning.plan import CopiedFile, InputModel, Plan, Read, Row
from blockmerge.planning.rows import Worked, make_row, output_dtype, pieces_of
from blockmerge.recipes import Arithmetic, Recipe
from blockmerge.sources import Source

__all__ = ["make_plan"]

_COPIED = (
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
    "tekken.json", "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
_COPIED_PATTERNS = ("LICENSE*", "NOTICE*", "*.tiktoken", "chat_templates/*.jinja", "additional_chat_templates/*.jinja")


def make_plan(recipe: Recipe, inputs: Sequence[InputModel], sources: Sequence[Source]) -> Plan:
    """Plan the merge of two opened models; reads headers, configs and nothing else.

    Raises :class:`RecipeError`, :class:`ModelError` or :class:`MismatchError`, or several as ``Problems``.
    """
    first = sources[0]
    problems: list[BlockmergeError] = [problem for source in sources for problem in checks.unusable(source)]
    problems += [problem for other in sources[1:] for problem in checks.incompatible(first, other)]
    raise_all(problems)
    worked = _gradient(recipe, sources) if recipe.method == "gradient" else combine(recipe, sources)
    rows, shards = lay_out(worked.rows, recipe.max_shard_size)
    default = _main_dtype(first)
    written = output_dtype(recipe, default)
    config = _config_file(first, written, untied=worked.untied, changed=written != default)
    files, file_notes = _files(first)
    differing = [line for other in sources[1:] for line in checks.differences(first, other)]
    return Plan(
        recipe=recipe,
        inputs=tuple(inputs),
        architecture=checks.architecture(first),
        order=worked.order,
        rows=rows,
        shards=shards,
        files=(config, *files),
        dtype=written,
        warnings=(*worked.warnings, *dict.fromkeys(differing)),
        notes=(*worked.notes, *file_notes),
    )


def _gradient(recipe: Recipe, sources: Sequence[Source]) -> Worked:
    first, second = sources
    pairing = pair(recipe, first, second)
    raise_all(shape_summary(pairing, first, second))
    make = _Rows(recipe, (first, second))
    rows = [make.row(target) for target in pairing.targets]
    return Worked(rows, pairing.order, pairing.warnings, pairing.notes, untied=pairing.untied)


def _main_dtype(source: Source) -> DType:
    """The floating dtype that most bytes of a model are stored in."""
    sizes: dict[DType, int] = {}
    for spec in source.specs.values():
        dtype = spec.result_dtype
        if dtype.floating:
            sizes[dtype] = sizes.get(dtype, 0) + spec.elements * dtype.bits // 8
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype.code), default=dtypes.F32)


class _Rows:
    """Turns targets of a gradient into rows."""

    def __init__(self, recipe: Recipe, sources: tuple[Source, Source]) -> None:
        self.recipe = recipe
        loads = [_load_dtype(source) for source in sources]
        self.load = (loads[0], loads[1])
        stored = {spec.dtype for source in sources for spec in source.specs.values()}
        if recipe.arithmetic is not Arithmetic.EXACT and dtypes.F64 in {*loads, *stored}:
            raise RecipeError("arithmetic: the original's is not defined for float64 models; use --arithmetic exact")

    def row(self, target: Target) -> Row:
        """The row of one target, without its place in a shard."""
        spec = target.base
        base = Read(0, spec.name, spec.dtype)
        kept = self._kept() if checks.blendable(spec.dtype) else Copy()
        if target.ratio is None or not checks.blendable(spec.dtype):
            pieces = pieces_of(spec, None, (base,), kept, kept)
        else:
            pieces = pieces_of(spec, target.common, *self._blend(base, target.steps, target.ratio), kept)
        return make_row(self.recipe, spec, pieces, name=target.name, position=target.position, ratio=target.ratio)

    def _kept(self) -> Operation:
        """What happens to elements that are model 1's alone; the original halves them like all others."""
        if self.recipe.arithmetic is Arithmetic.EXACT:
            return Copy()
        return Original(steps=(), load=self.load, work=self.load)

    def _blend(self, base: Read, steps: Sequence[Step], ratio: float) -> tuple[tuple[Read, ...], Operation]:
        partners = list(dict.fromkeys(step.partner for step in steps))
        others = tuple(Read(1, partner.name, partner.dtype) for partner in partners)
        if self.recipe.arithmetic is not Arithmetic.EXACT:
            halves = self.recipe.arithmetic is Arithmetic.ORIGINAL
            return (base, *others), Original(
                steps=tuple((step.ratio, 1 + partners.index(step.partner)) for step in steps),
                load=self.load,
                work=(F16, F16) if halves else self.load,
            )
        if ratio == 0.0:
            return (base,), Copy()
        if ratio == 1.0:
            return others, Copy()
        return (base, *others), Lerp(ratio)


def _load_dtype(source: Source) -> DType:
    """The dtype in which transformers loads a model: the config's, else that of the first weight by file and name."""
    for key in ("dtype", "torch_dtype"):
        named = source.config.get(key)
        dtype = dtypes.by_name(named) if isinstance(named, str) else None
        if dtype is not None and checks.blendable(dtype):
            return dtype
    return next((spec.dtype for spec in source.specs.values() if checks.blendable(spec.dtype)), dtypes.F32)


def _config_file(source: Source, dtype: DType, *, untied: bool, changed: bool) -> CopiedFile:
    """config.json of model 1: its own bytes where nothing changes."""
    config: dict[str, Any] = json.loads(json.dumps(dict(source.config)))
    named = config.get("dtype", config.get("torch_dtype"))
    if changed or named != dtype.name:
        _set_dtype(config, dtype)
    if untied:
        config["tie_word_embeddings"] = False
    path = source.folder / "config.json" if source.folder is not None else None
    if path is not None and path.is_file() and config == read_object(path):
        return CopiedFile("config.json", path.stat().st_size)
    content = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return CopiedFile("config.json", len(content), content)


def _set_dtype(config: dict[str, Any], dtype: DType) -> None:
    """Under the key that is there; transformers reads both, older tools only ``torch_dtype``."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    config.update(dict.fromkeys(keys, dtype.name))
    for part in config.values():
        if isinstance(part, Mapping) and ("dtype" in part or "torch_dtype" in part):
            _set_dtype(part, dtype)  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def _files(source: Source) -> tuple[list[CopiedFile], list[str]]:
    """The small files that belong to model 1, and what is said about those left behind."""
    if source.folder is None:
        return [], []
    folder: Path = source.folder
    names = [name for name in _COPIED if (folder / name).is_file()]
    names += sorted(
        path.relative_to(folder).as_posix()
        for pattern in _COPIED_PATTERNS
        for path in folder.glob(pattern)
        if path.is_file()
    )
    code = sorted(path.name for path in folder.glob("*.py"))
    notes = [f"not copied, because it is code: {listed(code)}"] if code else []
    if "auto_map" in source.config:
        notes.append(
            f"{source.label} runs code of its own (auto_map in config.json); copy that yourself if you trust it"
        )
    if not any(name.startswith(("tokenizer", "vocab", "spiece", "tekken")) for name in names):
        notes.append(f"{source.label} has no tokenizer files; the merged model will have none")
    return [CopiedFile(name, (folder / name).stat().st_size) for name in names], notes
