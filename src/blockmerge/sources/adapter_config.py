"""adapter_config.json, as PEFT writes it: what it says about a LoRA adapter, and which adapters are refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from blockmerge.errors import FormatError, ModelError
from blockmerge.formats.jsonfile import read_object

__all__ = ["ADAPTER_CONFIG", "AdapterConfig", "read_adapter_config"]

ADAPTER_CONFIG = "adapter_config.json"
_MAX_BYTES = 10_000_000
_MAX_RANK = 65_536
_MAX_PATTERN = 500
_MAX_STEPS = 2 * 10**9
_REMEDY = "merge it into its base with peft (merge_and_unload), and give the merged model"
_PROMPTS = {
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "CARTRIDGE",
}
_PLAIN_STARTS = {"gaussian", "eva", "orthogonal", "mica", "true", "false", "none"}
_CHANGING = {
    "alora_invocation_tokens": "it acts on some tokens only, so no merged model does the same",
    "arrow_config": "it chooses among adapters while it runs, so no merged model does the same",
    "kasa_config": "it changed the base as well",
    "layer_replication": "it repeats layers of its base",
    "lora_bias": "its products have biases",
    "megatron_config": "it is laid out for Megatron",
    "monteclora_config": "it draws its weights at random",
    "target_parameters": "it is attached to parameters and not to modules, as fused experts are",
    "trainable_token_indices": "it holds single rows of the embedding",
    "use_bdlora": "its products are block-diagonal",
    "use_qalora": "it pools the inputs of its layers",
}
"""Options that change what an adapter computes, in ways that are not read here."""
_KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_class", "base_model_name_or_path", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config",
    "megatron_core", "modules_to_save", "parent_library", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
    "velora_config",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The options of a LoRA adapter that decide what it computes.

    ``fan_in_fan_out``: the weights it adapts are stored with inputs first (GPT-2). ``ensure_weight_tying``: a head that
    is tied to the embedding gets what the embedding gets. ``unknown`` are options that are set and not known here.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    fan_in_fan_out: bool
    ensure_weight_tying: bool
    unknown: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """The rank of ``module``, a path in the base such as ``model.layers.0.mlp.up_proj``."""
        return int(_matching(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """What its product is multiplied with: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv:2312.03732)."""
        rank, alpha = self.rank_of(module), _matching(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def check_patterns(self, modules: Iterable[str], where: str) -> None:
        """Raise :class:`FormatError` if looking for ``modules`` among the patterns could take minutes."""
        modules = list(modules)
        longest = max(map(len, modules), default=0)
        patterns = [*self.rank_pattern, *self.alpha_pattern]
        if len(modules) * sum(_steps(pattern, longest) for pattern in patterns) > _MAX_STEPS:
            raise FormatError(
                f"{where}: rank_pattern and alpha_pattern could take minutes to apply; write simpler ones"
            )

    @property
    def digest(self) -> str:
        """sha256 (hex) of what decides the result."""
        decisive = [
            self.rank, self.alpha, list(self.rank_pattern.items()), list(self.alpha_pattern.items()), self.use_rslora,
            self.use_dora, self.fan_in_fan_out, self.ensure_weight_tying,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The options in ``folder``.

    Raises :class:`ModelError` for adapters that are not LoRA or do more than weights can hold, naming what it is, and
    :class:`FormatError` for values that make no sense.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise ModelError(f"{folder}: has no {ADAPTER_CONFIG}; after the + stands an adapter, as peft saves it")
    entries = read_object(path, _MAX_BYTES)
    _check_kind(entries, path)
    options = _Options(entries, path)
    return AdapterConfig(
        rank=int(options.number("r", 8, whole=True)),
        alpha=options.number("lora_alpha", 8),
        rank_pattern=options.pattern("rank_pattern", whole=True),
        alpha_pattern=options.pattern("alpha_pattern"),
        use_rslora=options.flag("use_rslora"),
        use_dora=options.flag("use_dora"),
        fan_in_fan_out=options.flag("fan_in_fan_out"),
        ensure_weight_tying=options.flag("ensure_weight_tying"),
        unknown=tuple(sorted(key for key, value in entries.items() if value and key not in _KNOWN | _CHANGING.keys())),
    )


def _check_kind(entries: Mapping[str, Any], path: Path) -> None:
    kind = entries.get("peft_type")
    if not isinstance(kind, str):
        raise FormatError(f"{path}: has no peft_type; an adapter needs one, as peft saves it")
    if kind.upper() in _PROMPTS:
        raise ModelError(f"{path}: is {kind[:40]}, which changes what a model reads and not its weights; leave it out")
    if kind.upper() != "LORA":
        raise ModelError(f"{path}: is {kind[:40]}, and only LORA is read; {_REMEDY}")
    for key, reason in _CHANGING.items():
        if entries.get(key):
            raise ModelError(f"{path}: {key} is set: {reason}, which is not read; {_REMEDY}")
    start = entries.get("init_lora_weights", True)
    if not isinstance(start, str | bool | None) or str(start).lower() not in _PLAIN_STARTS:
        raise ModelError(
            f"{path}: init_lora_weights is {str(start)[:40]!r}, which changed the base as well; save it with peft's "
            f"path_initial_model_for_weight_conversion, or {_REMEDY}"
        )


class _Options:
    """Entries of the file, each checked for what it ought to be; null stands for the default."""

    def __init__(self, entries: Mapping[str, Any], path: Path) -> None:
        self._entries, self._path = entries, path

    def flag(self, key: str) -> bool:
        value = self._entries.get(key)
        if not isinstance(value, bool | None):
            raise FormatError(f"{self._path}: {key} is {str(value)[:40]!r}; it is true or false")
        return bool(value)

    def number(self, key: str, default: int, *, whole: bool = False) -> float:
        value = self._entries.get(key)
        return self._checked(default if value is None else value, key, whole=whole)

    def pattern(self, key: str, *, whole: bool = False) -> dict[str, float]:
        value: object = self._entries.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise FormatError(f"{self._path}: {key} is no object from names of modules to numbers")
        found = cast("dict[str, object]", value)
        for text in found:
            if reason := _unsafe(text):
                raise FormatError(f"{self._path}: {key}: {text[:80]!r} {reason}; write a simpler one")
        return {text: self._checked(number, f"{key}: {text[:80]}", whole=whole) for text, number in found.items()}

    def _checked(self, value: object, what: str, *, whole: bool) -> float:
        if whole:
            if type(value) is not int or not 1 <= value <= _MAX_RANK:
                raise FormatError(f"{self._path}: {what} is {str(value)[:40]!r}; a rank is 1 to {_MAX_RANK:,}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
            raise FormatError(f"{self._path}: {what} is {str(value)[:40]!r}; it is a finite number")
        return float(value)


# ---- patterns: regular expressions of strangers ----------------------------------------------------------------------


def _matching(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The number of the first key that is ``module`` or, as a regular expression, matches its end from a dot on."""
    return next((number for key, number in pattern.items() if _compiled(key).match(module)), default)


@lru_cache(maxsize=100_000)
def _compiled(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")


def _unsafe(text: str) -> str | None:
    """Why ``text`` is no pattern that we match: broken, or of a kind whose time we cannot bound."""
    if len(text) > _MAX_PATTERN:
        return f"is longer than {_MAX_PATTERN} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(text)
    except (re.error, Warning, RecursionError, OverflowError) as error:
        return f"is no regular expression ({error})"
    if re.search(r"\\[1-9]|\(\?(?!:)", text):
        return "looks back or around"
    if re.search(r"\)[*+{]", _bare(text)):
        return "repeats a group"
    return None


def _bare(text: str) -> str:
    """The pattern with escapes and character classes replaced by a letter."""
    return re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\.", "x", text)).replace("(?:", "(")


def _steps(pattern: str, length: int) -> int:
    """A bound on the steps of matching a text of ``length`` characters: places for repetitions, times alternatives."""
    bare = _bare(pattern)
    repetitions = 1 + len(re.findall(r"[*+?{]", bare))
    alternatives = math.prod(1 + group.count("|") for group in bare.split("("))
    return math.comb(length + repetitions, repetitions) * alternatives
