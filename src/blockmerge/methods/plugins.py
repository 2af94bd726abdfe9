"""Methods of other packages, found through the entry-point group ``blockmerge.methods``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from blockmerge.errors import RecipeError
from blockmerge.methods.declaration import Method

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "Catalogue"]

GROUP = "blockmerge.methods"


class Catalogue(Mapping[str, Method]):
    """Methods by name: our own, and behind them those of installed packages, which are looked for only when needed.

    Raises :class:`RecipeError` then if one cannot be loaded, is no method, or bears the name of another one: a method
    must not silently be something else.
    """

    def __init__(self, own: Iterable[Method]) -> None:
        self.own: Mapping[str, Method] = {method.name: method for method in own}
        self._added: dict[str, Method] = {}

    def add(self, method: Method) -> None:
        """Let recipes of this process use ``method``; one added before under its name is replaced."""
        if method.name in self.own:
            raise RecipeError(f"methods: {method.name} is a method of Blockmerge's own; give yours another name")
        self._added[method.name] = method

    @cached_property
    def _offered(self) -> Mapping[str, Method]:
        from importlib.metadata import entry_points

        found: dict[str, Method] = {}
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
            method = _loaded(entry)
            if method.name in self.own or method.name in found:
                raise RecipeError(
                    f"methods: {entry.value} offers {method.name}, but there is one already; uninstall it"
                )
            found[method.name] = method
        return found

    @property
    def plugins(self) -> Mapping[str, Method]:
        """The methods of other packages, and those added."""
        return {**self._offered, **self._added}

    def __getitem__(self, name: str) -> Method:
        return self.own[name] if name in self.own else self.plugins[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.own, *self.plugins))

    def __len__(self) -> int:
        return len(self.own) + len(self.plugins)


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
