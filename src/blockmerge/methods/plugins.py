"""Methods of other packages, found through the entry-point group ``blockmerge.methods``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from blockmerge.errors import RecipeError
from blockmerge.methods.declaration import Method

__all__ = ["GROUP", "plugins"]

GROUP = "blockmerge.methods"


@cache
def plugins() -> Mapping[str, Method]:
    """The methods that installed packages offer, by name.

    Raises :class:`RecipeError` if one cannot be loaded or is no method; a method must not be silently another one.
    """
    found: dict[str, Method] = {}
    for entry in entry_points(group=GROUP):
        method = _loaded(entry)
        if method.name in found:
            raise RecipeError(f"methods: two packages offer {method.name}; uninstall one of them")
        found[method.name] = method
    return found


def _loaded(entry: EntryPoint) -> Method:
    package = entry.dist.name if entry.dist is not None else entry.value
    try:
        method: object = entry.load()
    except Exception as error:  # somebody else's code
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(f"methods: {entry.name} of the package {package} cannot be loaded: {reason}") from error
    if not isinstance(method, Method):
        raise RecipeError(
            f"methods: {entry.name} of the package {package} is no Method (blockmerge.methods.plain makes one)"
        )
    return method
