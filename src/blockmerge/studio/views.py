"""What the page shows of models, plans and methods, as plain values."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import blockmerge
from blockmerge.architectures import Block, block_of, layer_of
from blockmerge.errors import OutputError
from blockmerge.execution.run import thread_count
from blockmerge.execution.writer import partial_of
from blockmerge.methods import METHODS, Method, Parameter
from blockmerge.planning import Inspection, Plan, explain
from blockmerge.report.svg import COLOURS
from blockmerge.studio.roots import shown

__all__ = ["card_view", "finite", "methods_view", "model_view", "output_view", "picture_of", "plan_view"]

_LONGEST_CARD = 100_000


def model_view(reference: str, model: Inspection) -> dict[str, Any]:
    """A model at a glance, and its tensors in order: the axis of a gradient before there is a plan."""
    return {
        "reference": reference,
        "name": model.label,
        "architecture": model.architecture,
        "layers": model.layers,
        "parameters": model.parameters,
        "bytes": sum(spec.nbytes for spec in model.tensors),
        "dtypes": list(model.dtypes),
        "vocabulary": max(model.vocabulary.values(), default=None),
        "order": model.order,
        "odd": list(model.odd),
        "tensors": _axis(model),
    }


def _axis(model: Inspection) -> dict[str, Any]:
    """Every name with a place on the gradient: the stored tensors, and at the end heads that share one of them."""
    shared = [name for name in model.ties if block_of(name) is Block.HEAD]
    names = [*(spec.name for spec in model.tensors), *shared]
    return {
        "name": names,
        "layer": [layer_of(name) for name in names],
        "block": [block_of(name).value for name in names],
    }


def plan_view(plan: Plan) -> dict[str, Any]:
    """The plan with its tensors as columns, a third of the size of :meth:`Plan.to_json`."""
    rows = plan.rows
    return {
        "digest": plan.digest,
        "architecture": plan.architecture,
        "order": plan.order,
        "method": plan.recipe.method,
        "dtype": plan.dtype.name,
        "inputs": [{"role": role, "name": m.published} for role, m in zip(plan.roles, plan.inputs, strict=True)],
        "bytes_to_read": plan.bytes_to_read,
        "bytes_to_write": plan.bytes_to_write,
        "shards": len(plan.shards),
        "files": len(plan.files),
        "memory": _memory(plan),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
        "tensors": {
            "name": [row.name for row in rows],
            "position": [row.position for row in rows],
            "layer": [row.layer for row in rows],
            "block": [row.block.value for row in rows],
            "ratio": [row.ratio for row in rows],
            "settings": [row.settings for row in rows],
            "dtype": [row.dtype.name for row in rows],
            "shape": [list(row.shape) for row in rows],
            "read": [row.read_bytes for row in rows],
            "write": [row.nbytes for row in rows],
        },
    }


def _memory(plan: Plan) -> int:
    """Bytes of peak memory with a thread for each core, as a merge has them."""
    shared, each = explain.memory(plan)
    return shared + each * thread_count(None)


def output_view(out: Path) -> dict[str, Any]:
    """What is at the place for a result."""
    parent = next((parent for parent in out.parents if parent.exists()), None)
    return {
        "path": shown(out),
        "exists": out.exists(),
        "unfinished": partial_of(out).exists(),
        "disk_free": None if parent is None else shutil.disk_usage(parent).free,
    }


def methods_view() -> dict[str, Any]:
    """The gradient's colours and every method's declaration, from which the page makes its forms."""
    return {
        "version": blockmerge.__version__,
        "colours": {block.value: colour for block, colour in COLOURS.items()},
        "methods": [_method(METHODS[name]) for name in sorted(METHODS)],
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "equation": method.equation,
        "paper": method.paper,
        "base": method.base,
        "models": list(method.models),
        "parameters": [_parameter(parameter) for parameter in method.parameters],
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "help": parameter.help,
        "kind": parameter.kind,
        "default": parameter.default,
        "per_model": parameter.per_model,
        "low": parameter.low if math.isfinite(parameter.low) else None,
        "high": parameter.high if math.isfinite(parameter.high) else None,
        "choices": list(parameter.choices),
    }


def card_view(out: Path) -> dict[str, Any]:
    """The model card of a merge, and whether it has a picture. Raises :class:`OutputError` if there is none."""
    try:
        text = (out / "README.md").read_text(encoding="utf-8", errors="replace")[:_LONGEST_CARD]
    except OSError as error:
        raise OutputError(f"{out}: its card cannot be read: {error.strerror or error}") from error
    return {"text": text, "picture": picture_of(out) is not None}


def picture_of(out: Path) -> Path | None:
    """The picture on the card of a merge."""
    return next((path for name in ("gradient.svg", "merge.svg") if (path := out / name).is_file()), None)


def finite(number: float | None) -> float | None:
    """A number that JSON has a word for."""
    return number if number is not None and math.isfinite(number) else None
