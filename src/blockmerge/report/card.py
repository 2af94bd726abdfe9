"""The model card of a merge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blockmerge.errors import printable
from blockmerge.formats.yamltext import yaml_text
from blockmerge.methods import METHODS
from blockmerge.planning import InputModel, Plan
from blockmerge.recipes import Arithmetic, to_yaml
from blockmerge.report.layermap import is_stacked
from blockmerge.report.picture import picture_name

__all__ = ["model_card"]

_ARITHMETIC = {
    Arithmetic.EXACT: "exact: weights decoded exactly, blended in float32 or wider, rounded once",
    Arithmetic.ORIGINAL: "original: bit for bit that of BlockMerge_Gradient's script",
    Arithmetic.ORIGINAL_YAML: "original: bit for bit that of BlockMerge_Gradient's YAML edition",
}


def model_card(plan: Plan) -> str:
    """The text of README.md: front matter that the Hub reads, the picture, the recipe, the inputs."""
    sections = [
        f"---\n{_front_matter(plan.leaves)}---",
        "# " + " × ".join(_escaped(model.label) for model in plan.leaves),
        *_how(plan),
        _inputs_table(plan),
        f"Arithmetic: {_ARITHMETIC[plan.recipe.arithmetic]}. Weights are stored in {plan.dtype}.",
        f"## Recipe\n\n```yaml\n{to_yaml(plan.recipe, plan.names)}```\n\n"
        "Where the models are found under these names, `blockmerge merge recipe.yaml OUT` makes this model again, byte "
        "for byte. `blockmerge.json` tells the inputs by the digests of their headers, and holds one of every tensor.",
        _remarks("What differs between the models", plan.warnings),
        _remarks("What was decided", plan.notes),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _how(plan: Plan) -> list[str]:
    """What was done, in a sentence and, where there is one, a picture."""
    link = "[Blockmerge](https://pypi.org/project/blockmerge/)"
    picture = picture_name(plan)
    if plan.recipe.method != "gradient":
        method = METHODS[plan.recipe.method]
        summary = method.summary[0].lower() + method.summary[1:]
        shown = "Layers of each model in the result" if is_stacked(plan) else "Settings along the tensors"
        return [
            f"Merged with {link} by `{method.name}` ({method.paper}): {summary}",
            f"`{method.equation}`",
            *([f"![{shown}]({picture})"] if picture else []),
        ]
    second = plan.inputs[1].label
    return [
        f"Two finetuned models blended by a gradient with {link}: each tensor takes its own share of either.",
        f"![Share of {second} in each tensor, from the first to the last]({picture})",
    ]


def _front_matter(inputs: Iterable[InputModel]) -> str:
    inputs = list(inputs)
    entries: dict[str, Any] = {
        "base_model": list(dict.fromkeys(part.label for model in inputs for part in model.parts)),
        "base_model_relation": "merge",
        "library_name": "transformers",
        "language": _together(inputs, "language"),
        "license": _together(inputs, "license"),
        "license_name": _together(inputs, "license_name"),
        "license_link": _together(inputs, "license_link"),
        "pipeline_tag": "text-generation",
        "tags": ["blockmerge", "merge"],
    }
    kept = {key: value for key, value in entries.items() if value}
    return yaml_text(kept, width=1000, flow=False)


def _together(inputs: Iterable[InputModel], key: str) -> str | list[str] | None:
    """What the inputs' cards say under ``key``: one text if they agree, else all of them."""
    found: list[str] = []
    for model in inputs:
        value: Any = model.card.get(key, [])
        found += [value] if isinstance(value, str) else value
    distinct = list(dict.fromkeys(found))
    return distinct[0] if len(distinct) == 1 else distinct or None


def _inputs_table(plan: Plan) -> str:
    lines = ["| | model | licence |", "|---|---|---|"]
    for role, model in zip(plan.roles, plan.inputs, strict=True):
        licence = _together([model], "license") or "not stated"
        text = licence if isinstance(licence, str) else ", ".join(licence)
        lines.append(f"| {role} | {_escaped(model.published)} | {_escaped(text)} |")
    return "\n".join(lines)


def _remarks(title: str, lines: Iterable[str]) -> str:
    shown = [f"* {_escaped(line)}" for line in lines]
    return f"## {title}\n\n" + "\n".join(shown) if shown else ""


def _escaped(text: str) -> str:
    """Text of strangers inside Markdown: on one line, no table cell, no HTML."""
    return printable(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
