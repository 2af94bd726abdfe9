"""The methods and their parameters, from their declarations: for terminals and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator

from blockmerge.methods import METHODS, Method, Parameter

__all__ = ["methods_page", "methods_text"]


def methods_text() -> str:
    """All methods, for a terminal."""
    gradient = (
        "gradient: Two models by a curve along the tensors; see blockmerge gradient --help and docs/gradients.md."
    )
    return "\n\n".join([gradient, *("\n".join(_entry(method)) for method in METHODS.values())])


def _entry(method: Method) -> Iterator[str]:
    yield f"{method.name}: {method.summary}"
    yield f"    {method.equation}"
    yield f"    {method.paper}; models: {_count(method)}; base: {method.base}"
    for parameter in method.parameters:
        yield f"    {parameter.name:<18} {parameter.help} [{_default(parameter)}]"


def methods_page() -> str:
    """The part of docs/methods.md that follows from the declarations."""
    return "\n".join("\n".join(_section(method)) for method in METHODS.own.values())


def _section(method: Method) -> Iterator[str]:
    yield f"### {method.name}\n"
    yield f"{method.summary}\n"
    yield f"```text\n{method.equation}\n```\n"
    yield f"Source: {method.paper}. Models: {_count(method)}. Base: {method.base}.\n"
    if method.parameters:
        yield "| parameter | meaning | for each model | default |"
        yield "|---|---|---|---|"
        for parameter in method.parameters:
            each = "yes" if parameter.per_model else ""
            yield f"| `{parameter.name}` | {parameter.help} | {each} | {_default(parameter)} |"
        yield ""


def _count(method: Method) -> str:
    low, high = method.models
    if high is None:
        return "any number" if low == 1 else f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return "needed"
    if isinstance(parameter.default, bool):
        return str(parameter.default).lower()
    return f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default)
