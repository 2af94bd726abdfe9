"""Values as YAML, for recipes and the fronts of cards."""

from __future__ import annotations

import yaml

__all__ = ["yaml_text"]


def yaml_text(*documents: object, width: int, flow: bool | None) -> str:
    """Documents in lines of ``width`` characters, keys in their order.

    ``flow``: lists and mappings in brackets, or on lines of their own; None for what suits each.
    """
    # The stubs of PyYAML leave a part of the type of a width open.
    return yaml.safe_dump_all(  # pyright: ignore[reportUnknownMemberType]
        documents, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow
    )
