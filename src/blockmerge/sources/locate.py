"""From what a person types to a model: a folder or a Hub id with an optional revision, and perhaps an adapter of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from blockmerge.errors import ModelError, printable
from blockmerge.sources.adapter import AdapterSource
from blockmerge.sources.local import LocalSource
from blockmerge.sources.location import ModelLocation

__all__ = ["is_hub_id", "locate", "open_model", "parts_of"]

_MOST_BESIDE = 1000
"""Folders among which a misspelt one is looked for."""
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def locate(
    reference: str, *, quiet: bool = False, on_bytes: Callable[[int, int], object] | None = None
) -> ModelLocation:
    """The folder that ``reference`` means; a Hub id is downloaded first, as far as it is needed.

    ``base+adapter`` means a model and an adapter of it, each a folder or a Hub id; a folder with a ``+`` in its own
    name comes first.

    :param quiet: show no progress of downloads.
    :param on_bytes: called instead, from any thread, with the bytes of a download that are here, and of how many.

    Raises :class:`ModelError` if there is no such folder, or the Hub refuses or cannot be reached.
    """
    base, *adapters = parts_of(reference)
    found = _locate(base, adapter=False, quiet=quiet, on_bytes=on_bytes)
    for adapter in adapters:
        part = _locate(adapter, adapter=True, quiet=quiet, on_bytes=on_bytes)
        found = ModelLocation(found.folder, found.label, found.revision, adapter=part)
    return found


def parts_of(reference: str) -> tuple[str, ...]:
    """The model that ``reference`` names, and its adapter if it names one. Raises :class:`ModelError`."""
    return _split(reference) if "+" in reference and not _is_there(reference) else (reference,)


def is_hub_id(reference: str) -> bool:
    """Whether ``reference`` is looked for on the Hub: it reads like an id, and no folder is called so."""
    return not _is_there(reference) and _HUB_ID.fullmatch(reference) is not None


def _locate(
    reference: str, *, adapter: bool, quiet: bool, on_bytes: Callable[[int, int], object] | None
) -> ModelLocation:
    """The folder of a model, or of an adapter alone."""
    try:
        folder = Path(reference).expanduser()
        found, is_folder = folder.exists(), folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long, unsearchable, NUL
        raise ModelError(f"{reference}: is no usable path: {error}") from error
    if is_folder:
        return ModelLocation(folder, printable(folder.resolve().name))
    if found:
        files = "adapter_config.json and the adapter" if adapter else "config.json and the weights"
        raise ModelError(f"{reference}: is a file; give the folder that holds {files}")
    if match := _HUB_ID.fullmatch(reference):
        from blockmerge.sources.hub import download

        return download(match["id"], match["revision"], adapter=adapter, quiet=quiet, on_bytes=on_bytes)
    raise ModelError(f"{reference}: there is no such folder, and it is no Hub id ({_nearest(folder)})")


def _nearest(folder: Path) -> str:
    """The folder beside it whose name is the nearest; else what an id looks like."""
    beside: list[str] = []
    with suppress(OSError):
        beside = [path.name for path in islice(folder.parent.iterdir(), _MOST_BESIDE) if path.is_dir()]
    near = get_close_matches(folder.name, beside, 1)
    return f"did you mean {printable(str(folder.with_name(near[0])))}?" if near else "org/name or org/name@revision"


def _split(reference: str) -> tuple[str, str]:
    """Base and adapter, at the first ``+`` with something on both sides that may be a model, else at the last."""
    cuts = [(reference[:k], reference[k + 1 :]) for k, char in enumerate(reference) if char == "+"]
    for base, adapter in cuts:
        if all(_is_there(part) or _HUB_ID.fullmatch(part) for part in (base, adapter)):
            return base, adapter
    base, adapter = cuts[-1]
    if not base or not adapter:
        raise ModelError(f"{reference}: a model and its adapter are written BASE+ADAPTER, with nothing around the +")
    if len(cuts) > 1 and _is_there(cuts[0][0]):
        raise ModelError(
            f"{reference}: one adapter goes with a model, BASE+ADAPTER; merge the first one, then the next"
        )
    return base, adapter


def _is_there(reference: str) -> bool:
    try:
        return bool(reference) and Path(reference).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def open_model(location: ModelLocation) -> LocalSource | AdapterSource:
    """Open the model at ``location``, with its adapter if it names one."""
    base = LocalSource(location.folder, location.label)
    if location.adapter is None:
        return base
    with ExitStack() as stack:
        stack.callback(base.close)
        source = AdapterSource(base, location.adapter.folder, location.name)
        stack.pop_all()
        return source
