"""From what a person types to a model: a folder, or a Hub id with an optional revision."""

from __future__ import annotations

import re
from pathlib import Path

from blockmerge.errors import ModelError
from blockmerge.sources.local import LocalSource
from blockmerge.sources.location import ModelLocation

__all__ = ["locate", "open_model"]

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def locate(reference: str, *, quiet: bool = False) -> ModelLocation:
    """The folder that ``reference`` means; a Hub id is downloaded first, as far as it is needed.

    :param quiet: show no progress of downloads.

    Raises :class:`ModelError` if there is no such folder, or the Hub refuses or cannot be reached.
    """
    try:
        folder = Path(reference).expanduser()
        found, is_folder = folder.exists(), folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long, unsearchable, NUL
        raise ModelError(f"{reference}: is no usable path: {error}") from error
    if is_folder:
        return ModelLocation(folder, folder.resolve().name)
    if found:
        raise ModelError(f"{reference}: is a file; give the folder that holds config.json and the weights")
    if match := _HUB_ID.fullmatch(reference):
        from blockmerge.sources.hub import download

        return download(match["id"], match["revision"], quiet=quiet)
    raise ModelError(f"{reference}: there is no such folder, and it is no Hub id (org/name or org/name@revision)")


def open_model(location: ModelLocation) -> LocalSource:
    """Open the model at ``location``."""
    return LocalSource(location.folder, location.label)
