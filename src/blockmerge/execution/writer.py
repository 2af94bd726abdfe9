"""The output folder: built beside its place, published by one rename.

``OUT.partial`` holds the unfinished model; ``OUT.partial.journal`` keeps others away from it, and knows after an
interruption what is written already. A model appears at OUT whole and durable, or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Container, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from blockmerge.errors import OutputError, listed
from blockmerge.execution import system
from blockmerge.execution.journal import Journal, Key
from blockmerge.execution.system import told
from blockmerge.planning import Plan, Row, Shard
from blockmerge.sources import ModelLocation, SmallFile

__all__ = ["PartialModel", "check_output", "discard", "index_file", "partial_of"]

_INDEX = "model.safetensors.index.json"
_OF_MODELS = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt", "README.md",
    "gradient.svg", "merge.svg", "LICENSE*", "NOTICE*", ".gitattributes",
)  # fmt: skip
_LAST = ("config.json", "adapter_config.json")
"""What makes a folder a model or an adapter; written last, so that an unfinished folder never loads."""
_WINDOW = 64 << 20
_WINDOWS_UNTIL_WAIT = 4
"""Dirty pages of ours stay below some 256 MiB."""


def check_output(
    inputs: Iterable[ModelLocation], need: int, out: Path, *, overwrite: bool, names: Container[str] = ()
) -> None:
    """Refuse an output that exists, lies in the way of an input, or does not fit; before anything is read.

    ``need`` is its size in bytes, ``names`` its files, which may be replaced. Raises :class:`OutputError`.
    """
    try:
        _check_output(inputs, need, out, overwrite=overwrite, names=names)
    except (OSError, ValueError) as error:  # names too long, unsearchable folders
        raise OutputError(f"{out}: is no usable place: {error}") from error


def _check_output(
    inputs: Iterable[ModelLocation], need: int, out: Path, *, overwrite: bool, names: Container[str]
) -> None:
    target = _resolved(out)
    for source in [_resolved(part.folder) for part in inputs]:
        for place in (target, partial_of(target)):
            if _is_within(place, source) or _is_within(source, place):
                raise OutputError(f"{out}: {place} is, holds or lies inside the input {source}; choose another place")
    if out.exists() or out.is_symlink():
        _check_replaceable(out, overwrite=overwrite, names=names)
    unfinished = partial_of(target)
    if (
        unfinished.exists()
        and not _journal_of(unfinished).exists()
        and (unfinished.is_file() or any(unfinished.iterdir()))
    ):
        raise OutputError(f"{unfinished}: is in the way, and no leftover of a merge; move it away")
    if overwrite and _replaced(target).exists():
        raise OutputError(f"{_replaced(target)}: is in the way; it may be the model of an interrupted --overwrite")
    room = shutil.disk_usage(_existing_parent(target)).free + _allocated(unfinished)
    if need > room:
        raise OutputError(f"{out}: needs {need:,} bytes, the disk has {room:,} free; make room")


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


def partial_of(out: Path) -> Path:
    """Where the unfinished model is built."""
    return out.with_name(out.name + ".partial")


def _replaced(out: Path) -> Path:
    """Where the old model goes for a moment, on systems that cannot exchange two names."""
    return out.with_name(out.name + ".replaced")


def _journal_of(partial: Path) -> Path:
    """The journal beside it, which is the lock as well; it outlives a merge that was interrupted."""
    return partial.with_name(partial.name + ".journal")


def _remove(path: Path) -> None:
    """Remove a file, if the system lets us: a journal that stays behind alone means nothing."""
    with suppress(OSError):
        path.unlink()


def _allocated(folder: Path) -> int:
    """Bytes on disk that an unfinished model has already."""
    try:
        return sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in folder.iterdir())
    except OSError:
        return 0


def _other(noted: Key, key: Key) -> str | None:
    """Why an interrupted merge is not the one that is to be carried out now; None if it is."""
    if noted.get("plan") != key.get("plan"):
        return "was interrupted in the making of another model (the recipe or the inputs were others)"
    if noted.get("layout") != key.get("layout"):
        return "was interrupted in the making of the same model in files of other sizes"
    if noted.get("inputs") != key.get("inputs"):
        return "was interrupted, and its inputs have changed since"
    return None


class _ForeignError(OutputError):
    """What is there belongs to another merge, and stays."""


def _check_replaceable(out: Path, *, overwrite: bool, names: Container[str]) -> None:
    if not overwrite:
        raise OutputError(f"{out}: exists already; give another name, or --overwrite to replace it")
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out}: is not a folder; --overwrite replaces model folders only")
    if any(out.iterdir()) and not any((out / name).is_file() for name in _LAST):
        raise OutputError(f"{out}: holds something other than a model; --overwrite will not delete that")
    foreign = sorted(path.name for path in out.iterdir() if path.name not in names and not _belongs_to_model(path))
    if foreign:
        raise OutputError(f"{out}: also holds {listed(foreign, 4)}, which --overwrite will not delete; move that away")


def _belongs_to_model(path: Path) -> bool:
    """Whether a file in a model folder is one that a model or its merge consists of."""
    if path.is_dir():
        return path.name in ("chat_templates", "additional_chat_templates")
    return any(fnmatch(path.name, pattern) for pattern in _OF_MODELS)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())


def discard(out: Path) -> bool:
    """Remove what an interrupted merge into ``out`` left; False if there is nothing.

    Raises :class:`OutputError` if a merge is at work there, or what is there is not a merge's.
    """
    folder = partial_of(_resolved(out))
    journal = _journal_of(folder)
    with told(folder):
        if not journal.exists():
            if folder.exists():
                raise OutputError(f"{folder}: was not left by a merge, and is not removed")
            return False
    with told(folder), system.locked(journal) as file:
        if file is None:
            raise OutputError(f"{out}: a merge is writing it at this moment; stop that one first")
        if folder.exists():
            shutil.rmtree(folder)
        _remove(journal)
    return True


class PartialModel:
    """An output folder in the making.

    Leaving :meth:`open` without :meth:`publish` keeps what was written if the same merge can go on from there, after a
    signal or where the disk refused to write; anything else discards it.
    """

    def __init__(self, shards: Sequence[Shard], out: Path, *, overwrite: bool, names: Container[str] = ()) -> None:
        self._shards, self._out, self._overwrite, self._names = shards, _resolved(out), overwrite, names
        self._folder = partial_of(self._out)
        self._files: list[system.OutputFile] = []
        self._dirty = 0
        self._windows = 0
        self._guard = threading.Lock()
        self._published = False
        self.done: dict[int, dict[int, bytes]] = {}
        """Digests, by row and block, of what an earlier run wrote."""
        self.doubtful: dict[int, dict[int, bytes]] = {}
        """The same of what may have been lost with the power."""

    @contextmanager
    def open(self, key: Key | None = None, *, restart: bool = False) -> Generator[tuple[PartialModel, Journal]]:
        """Create the folder and its shards at full size, or go on where the merge ``key`` was interrupted.

        With ``restart``, or without a key, it always begins anew. Raises :class:`OutputError` if another merge is at
        work there, or was interrupted there.
        """
        with ExitStack() as stack:
            with told(self._folder):
                self._out.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(system.locked(_journal_of(self._folder)))
            if file is None:
                raise OutputError(f"{self._out}: another merge is writing it at this moment; wait for that one")
            journal = Journal(file)
            with suppress(OSError):  # so that no power failure leaves an unfinished folder without its journal
                system.sync_folder(self._out.parent)
            try:
                with told(self._folder):
                    self._prepare(journal, key, restart=restart)
                yield self, journal
            except BaseException as error:
                self._close()
                self._leave(error, resumable=key is not None)
                raise
            finally:
                self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()

    def _prepare(self, journal: Journal, key: Key | None, *, restart: bool) -> None:
        noted = None if restart or key is None else journal.read()
        if noted is None or not self._folder.exists() or noted.folder != self._folder.stat().st_ino:
            self._clear()
            self._create_shards()
            journal.start(key or {}, self._folder)
            return
        if reason := _other(noted.key, key or {}):
            raise _ForeignError(f"{self._out}: {reason}; --restart discards that, and so does blockmerge clean")
        self._clear(all_but={shard.name for shard in self._shards})
        self._create_shards()
        self.done, self.doubtful = noted.safe, noted.doubtful
        journal.resume()

    def _leave(self, error: BaseException, *, resumable: bool) -> None:
        """Keep what can be of use, with a word about it; discard the rest."""
        if self._published or isinstance(error, _ForeignError):
            return
        if resumable and (not isinstance(error, Exception) or isinstance(error, OutputError | OSError | MemoryError)):
            error.add_note(f"the same command goes on from there; `blockmerge clean {self._out}` discards it")
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        _remove(_journal_of(self._folder))

    def _clear(self, all_but: Container[str] = ()) -> None:
        """Empty the folder, but for some files of an interrupted merge, or create it."""
        if self._folder.is_symlink() or self._folder.is_file():
            self._folder.unlink()
        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in all_but or path.is_symlink():
                path.unlink()

    def _create_shards(self) -> None:
        for shard in self._shards:
            file = system.OutputFile(self._folder / shard.name, shard.size)
            self._files.append(file)
            file.write(memoryview(shard.header), 0)

    def read(self, row: Row, first_byte: int, count: int) -> bytes:
        """Bytes of the tensor of ``row`` that are written; while nobody writes."""
        return self._files[row.shard].read(count, row.offset + first_byte)

    def sync(self) -> None:
        """Make durable what was written. An error is final: the system may have dropped the bytes already."""
        with told(self._folder):
            for file in self._files:
                file.sync()

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
            with told(self._folder / self._shards[shard].name):
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
        with told(self._folder):
            self.sync()
            self._close()
            for name in sorted(extra, key=lambda name: name in _LAST):
                self._put(name, extra[name].read())
            system.sync_folder(self._folder)
            replaced = self._rename()
        self._published = True
        with suppress(OSError):  # some file systems cannot sync a folder; the model is in place
            system.sync_folder(self._out.parent)
        self._tidy(replaced)
        return self._out

    def _tidy(self, replaced: Path | None) -> None:
        """Remove what is left beside a published model: the one it replaced, and the journal."""
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        _remove(_journal_of(self._folder))

    def finished_before(self, key: Key) -> bool:
        """Whether an earlier run of the merge ``key`` published its model and was killed before it tidied up.

        What it left is tidied then.
        """
        path = _journal_of(self._folder)
        with told(self._out):
            if not path.exists() or not self._out.exists():
                return False
            with system.locked(path) as file:
                noted = None if file is None else Journal(file).read()
                if noted is None or _other(noted.key, key) or noted.folder != self._out.stat().st_ino:
                    return False
                self._tidy(self._folder)
                return True

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
            _check_replaceable(self._out, overwrite=self._overwrite, names=self._names)
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
