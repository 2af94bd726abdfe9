"""The output folder: built beside its place, published by one rename.

``OUT.partial`` holds the unfinished model, ``OUT.partial.lock`` keeps others away from it. A model appears at OUT whole
and durable, or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from blockmerge.errors import OutputError, listed
from blockmerge.execution import system
from blockmerge.planning import Plan, Row, Shard
from blockmerge.sources import ModelLocation, SmallFile

__all__ = ["PartialModel", "check_output"]

_INDEX = "model.safetensors.index.json"
_OF_MODELS = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt", "README.md",
    "gradient.svg", "LICENSE*", "NOTICE*", ".gitattributes",
)  # fmt: skip
_LAST = ("config.json", "adapter_config.json")
"""What makes a folder a model or an adapter; written last, so that an unfinished folder never loads."""
_WINDOW = 64 << 20
_WINDOWS_UNTIL_WAIT = 4
"""Dirty pages of ours stay below some 256 MiB."""


def check_output(inputs: Iterable[ModelLocation], need: int, out: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, lies in the way of an input, or does not fit; before anything is read.

    ``need`` is its size in bytes. Raises :class:`OutputError`.
    """
    try:
        _check_output(inputs, need, out, overwrite=overwrite)
    except (OSError, ValueError) as error:  # names too long, unsearchable folders
        raise OutputError(f"{out}: is no usable place: {error}") from error


def _check_output(inputs: Iterable[ModelLocation], need: int, out: Path, *, overwrite: bool) -> None:
    target = _resolved(out)
    for source in [_resolved(part.folder) for part in inputs]:
        for place in (target, _partial(target)):
            if _is_within(place, source) or _is_within(source, place):
                raise OutputError(f"{out}: {place} is, holds or lies inside the input {source}; choose another place")
    if out.exists() or out.is_symlink():
        _check_replaceable(out, overwrite=overwrite)
    unfinished = _partial(target)
    if (
        unfinished.exists()
        and not _lock_of(unfinished).exists()
        and (unfinished.is_file() or any(unfinished.iterdir()))
    ):
        raise OutputError(f"{unfinished}: is in the way, and no leftover of a merge; move it away")
    if overwrite and _replaced(target).exists():
        raise OutputError(f"{_replaced(target)}: is in the way; it may be the model of an interrupted --overwrite")
    room = shutil.disk_usage(_existing_parent(target)).free
    if need > room:
        raise OutputError(f"{out}: needs {need / 1e9:.2f} GB, the disk has {room / 1e9:.2f} GB free; make room")


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: is no usable path: {error}") from error


def _is_within(path: Path, folder: Path) -> bool:
    """Whether ``path`` is ``folder`` or lies inside it, under whatever name: mounts and large letters mean nothing."""
    return any(_is_same(place, folder) for place in (path, *path.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:  # one of them is not there yet
        return False


def _partial(out: Path) -> Path:
    """Where the unfinished model is built."""
    return out.with_name(out.name + ".partial")


def _replaced(out: Path) -> Path:
    """Where the old model goes for a moment, on systems that cannot exchange two names."""
    return out.with_name(out.name + ".replaced")


def _lock_of(partial: Path) -> Path:
    """The lock beside it, which outlives a merge only if that was killed."""
    return partial.with_name(partial.name + ".lock")


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    if not overwrite:
        raise OutputError(f"{out}: exists already; give another name, or --overwrite to replace it")
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out}: is not a folder; --overwrite replaces model folders only")
    if any(out.iterdir()) and not any((out / name).is_file() for name in _LAST):
        raise OutputError(f"{out}: holds something other than a model; --overwrite will not delete that")
    foreign = sorted(path.name for path in out.iterdir() if not _belongs_to_model(path))
    if foreign:
        raise OutputError(f"{out}: also holds {listed(foreign, 4)}, which --overwrite will not delete; move that away")


def _belongs_to_model(path: Path) -> bool:
    """Whether a file in a model folder is one that a model or its merge consists of."""
    if path.is_dir():
        return path.name in ("chat_templates", "additional_chat_templates")
    return any(fnmatch(path.name, pattern) for pattern in _OF_MODELS)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())


@contextmanager
def _told(where: Path) -> Generator[None]:
    """Turn what the system says while writing into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{where}: the disk is full; make room and start again") from error
        raise OutputError(f"{where}: cannot be written: {error.strerror or error}") from error


class PartialModel:
    """An output folder in the making. Leaving :meth:`open` without :meth:`publish` discards what was written."""

    def __init__(self, shards: Sequence[Shard], out: Path, *, overwrite: bool) -> None:
        self._shards, self._out, self._overwrite = shards, _resolved(out), overwrite
        self._folder = _partial(self._out)
        self._files: list[system.OutputFile] = []
        self._dirty = 0
        self._windows = 0
        self._guard = threading.Lock()
        self._published = False

    @contextmanager
    def open(self) -> Generator[PartialModel]:
        """Create the folder and its shards at full size; discard them on the way out unless published."""
        with _told(self._folder), ExitStack() as stack:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(system.lock(_lock_of(self._folder)))
            locked = stack.pop_all()
        with locked:
            if not held:
                raise OutputError(f"{self._out}: another merge is writing it at this moment; wait for that one")
            try:
                with _told(self._folder):
                    self._clear()
                    self._create_shards()
                yield self
            finally:
                for file in self._files:
                    file.close()
                if not self._published:
                    shutil.rmtree(self._folder, ignore_errors=True)

    def _clear(self) -> None:
        """Start from an empty folder, without what an interrupted merge left here."""
        if self._folder.is_symlink() or self._folder.is_file():
            self._folder.unlink()
        elif self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir()

    def _create_shards(self) -> None:
        for shard in self._shards:
            file = system.OutputFile(self._folder / shard.name, shard.size)
            self._files.append(file)
            file.write(memoryview(shard.header), 0)

    def write(self, row: Row, first_byte: int, data: memoryview) -> None:
        """Put ``data`` into the tensor of ``row``, from its byte ``first_byte``. Safe from several threads."""
        self.write_at(row.shard, row.offset + first_byte, data)

    def write_at(self, shard: int, offset: int, data: memoryview) -> None:
        """Put ``data`` into shard number ``shard`` at byte ``offset``. Safe from several threads."""
        file = self._files[shard]
        try:
            if os.name == "posix":
                file.write(data, offset)
            else:
                with self._guard:
                    file.write(data, offset)
        except OSError as error:
            with _told(self._folder / self._shards[shard].name):
                raise error
        self._bound_dirty_pages(file, len(data))

    def _bound_dirty_pages(self, file: system.OutputFile, count: int) -> None:
        with self._guard:
            self._dirty += count
            if self._dirty < _WINDOW:
                return
            self._dirty = 0
            self._windows += 1
            wait = self._windows % _WINDOWS_UNTIL_WAIT == 0
        file.start_writeback(wait=wait)

    def publish(self, extra: Mapping[str, SmallFile]) -> Path:
        """Make everything durable and give the folder its name.

        ``extra`` are the small files besides the shards. The index and config.json come last, so that an unfinished
        folder never loads.
        """
        with _told(self._folder):
            for file in self._files:
                file.sync()
                file.close()
            for name in sorted(extra, key=lambda name: name in _LAST):
                self._put(name, extra[name].read())
            system.sync_folder(self._folder)
            replaced = self._rename()
        self._published = True
        with suppress(OSError):  # some file systems cannot sync a folder; the model is in place
            system.sync_folder(self._out.parent)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        return self._out

    def _put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _rename(self) -> Path | None:
        """Give the folder its name; returns where the model that was replaced is now."""
        if self._out.exists() or self._out.is_symlink():  # it may have appeared meanwhile
            _check_replaceable(self._out, overwrite=self._overwrite)
        else:
            self._folder.rename(self._out)
            return None
        if system.exchange(self._folder, self._out):
            return self._folder
        replaced = _replaced(self._out)
        self._out.rename(replaced)
        try:
            self._folder.rename(self._out)
        except BaseException:
            replaced.rename(self._out)
            raise
        return replaced


def index_file(plan: Plan) -> dict[str, SmallFile]:
    """The index of a sharded model, as the Hub writes it; none for a single file."""
    if len(plan.shards) == 1:
        return {}
    rows: Sequence[Row] = plan.rows
    index: dict[str, Any] = {
        "metadata": {
            "total_parameters": sum(row.elements for row in rows),
            "total_size": sum(row.nbytes for row in rows),
        },
        "weight_map": {row.name: plan.shards[row.shard].name for row in sorted(rows, key=lambda row: row.name)},
    }
    return {_INDEX: SmallFile.of(json.dumps(index, indent=2, sort_keys=True) + "\n")}
