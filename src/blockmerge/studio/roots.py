"""Which folders the page may see: models under the roots, in the Hub's cache, and those that ship with the package.

Whatever the page names is resolved first, symbolic links too, and must then lie inside one of these folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from blockmerge.errors import ModelError, OutputError
from blockmerge.recipes import Recipe
from blockmerge.report.manifest import MANIFEST
from blockmerge.sources import is_hub_id, parts_of
from blockmerge.sources.local import WEIGHTS

__all__ = ["Found", "Roots", "shown"]

_DEPTH = 5
_MOST_FOLDERS = 20_000
"""A root may be somebody's home; looking through it must end."""
_MOST_FILES = 10_000
"""In a model folder; its small files may lie in folders of their own."""
_EXAMPLES = Path(__file__).parents[1] / "demo" / "models"


@dataclass(frozen=True, slots=True)
class Found:
    """A model that may be picked: what a recipe calls it, what people call it, where it is from, bytes of weights.

    ``merged``: Blockmerge made it.
    """

    reference: str
    name: str
    place: str
    size: int
    merged: bool = False

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


class Roots:
    """Folders for models, in which merges may be written; the Hub's cache and the examples are read only."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self.folders = tuple(dict.fromkeys(root.expanduser().resolve() for root in roots))
        for root in self.folders:
            if not root.is_dir():
                raise ModelError(f"{root}: there is no such folder; --root takes folders that hold models")

    @property
    def readable(self) -> tuple[Path, ...]:
        """Every folder that may be read."""
        cache = _hub_cache()
        return (*self.folders, _EXAMPLES.resolve(), *([cache] if cache.is_dir() else []))

    def prefixes(self) -> list[dict[str, str]]:
        """The roots, each with what to write before the name of a new folder in it."""
        here = Path.cwd().resolve()
        return [
            {"path": shown(root), "prefix": "" if root == here else f"{_shortest(root).rstrip('/')}/"}
            for root in self.folders
        ]

    def models(self) -> list[Found]:
        """Every model in these folders, roots first."""
        found: list[Found] = []
        for root in self.folders:
            found += (_found(folder, root) for folder in _model_folders(root))
        found += _cached()
        found += (
            Found(str(folder), folder.name, "examples", _size(folder)) for folder in _model_folders(_EXAMPLES.resolve())
        )
        return list({model.reference: model for model in found}.values())

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise :class:`ModelError` if ``recipe``, or a stage of it, reads what it may not."""
        for one in (recipe, *recipe.stages.values()):
            for reference in one.models:
                if reference not in recipe.stages:
                    self.check_model(reference)

    def check_model(self, reference: str, *, fetch: bool = False) -> None:
        """Raise :class:`ModelError` if ``reference`` (``base+adapter`` too) leads outside, or is not here.

        :param fetch: a Hub id may be one that is not in the cache yet.
        """
        for part in parts_of(reference):
            if is_hub_id(part):
                if not fetch and not _is_cached(part):
                    raise ModelError(f"{part}: is not on this machine yet; add it under Models to download it")
            elif not self._holds(part):  # the same words for what is not there: a page learns nothing of other folders
                roots = ", ".join(map(str, self.folders))
                raise ModelError(f"{part}: is no model folder inside the roots ({roots})")

    def _holds(self, reference: str) -> bool:
        """Whether a folder lies in the roots, and all that it holds: its files may be links."""
        try:
            folder = Path(reference).expanduser().resolve(strict=True)
            found = [folder, *islice(folder.rglob("*"), _MOST_FILES)]
            places = [path.resolve() for path in found]
        except (OSError, RuntimeError, ValueError):
            return False
        return len(found) <= _MOST_FILES and all(_within(place, self.readable) for place in places)

    def output(self, text: str) -> Path:
        """The folder that ``text`` names for a merged model. Raises :class:`OutputError` if it is not in a root."""
        try:
            target = Path(text).expanduser().resolve()
            named = bool(text.strip()) and target not in self.folders
        except (OSError, RuntimeError, ValueError):
            target, named = Path("/"), False
        if not named or not _within(target, self.folders):
            roots = ", ".join(map(str, self.folders))
            raise OutputError(f"{text or 'the output'}: choose a new folder inside the roots ({roots})")
        return target


def _within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _model_folders(root: Path) -> Iterator[Path]:
    """Folders under ``root`` with a config and weights; links to folders are not followed, hidden ones left out."""
    for visited, (text, names, files) in enumerate(os.walk(root)):
        folder = Path(text)
        names[:] = sorted(name for name in names if not name.startswith(".") and not name.endswith(".partial"))
        if "config.json" in files and any(name in files for name in WEIGHTS):
            names.clear()
            yield folder
        if len(folder.relative_to(root).parts) >= _DEPTH:
            names.clear()
        if visited > _MOST_FOLDERS:
            return


def _found(folder: Path, root: Path) -> Found:
    name = folder.name if folder == root else folder.relative_to(root).as_posix()
    return Found(_shortest(folder), name, shown(root), _size(folder), (folder / MANIFEST).is_file())


def shown(path: Path) -> str:
    """As people write it: what is in their own folder begins with a ``~``."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):  # it is elsewhere, or nobody is at home
        return str(path)


def _shortest(folder: Path) -> str:
    """As a person would type it where the studio was started."""
    here = Path.cwd().resolve()
    if folder != here and here in folder.parents:
        return folder.relative_to(here).as_posix()
    return str(folder)


def _size(folder: Path) -> int:
    """Bytes of weights, roughly: those of all weight files."""
    sizes: list[int] = []
    files = [*folder.glob("*.safetensors")] or [*folder.glob("pytorch_model*.bin")]
    for path in files:
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # a link to nowhere
            continue
    return sum(sizes)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def _cached() -> Iterator[Found]:
    """Whole models in the Hub's cache, by their ids."""
    for repo in sorted(_hub_cache().glob("models--*--*")):
        reference = "/".join(repo.name.split("--")[1:3])
        for folder in sorted((repo / "snapshots").glob("*"))[:1]:
            if (folder / "config.json").exists() and any((folder / name).exists() for name in WEIGHTS):
                yield Found(reference, reference, "Hugging Face cache", _size(folder))


def _is_cached(reference: str) -> bool:
    """Whether the cache holds the config of a Hub id, at the revision that it may name."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, _, revision = reference.partition("@")
    try:
        return isinstance(try_to_load_from_cache(repo, "config.json", revision=revision or None), str)
    except HFValidationError:
        return False
