"""Merges, one after the other, in a thread of their own; a small file for each lets them go on after a restart."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from blockmerge import api
from blockmerge.errors import BlockmergeError, FormatError, OutputError
from blockmerge.execution import Event, Finished, Progress, Publishing, Started, TensorDone
from blockmerge.formats.jsonfile import read_object
from blockmerge.recipes.load import parse_recipe
from blockmerge.studio.roots import Roots

__all__ = ["Job", "Jobs", "State"]

State = Literal["waiting", "running", "stopping", "stopped", "done", "failed"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One merge: what to make (``recipe`` is YAML), where, and how far it is. Sizes in bytes, ``created`` in Unix time.

    ``made`` of ``tensors`` are written, ``tensor`` the last of them. ``rate`` is bytes written per second of this run,
    ``left`` the seconds that the rest will take, if that is known.
    """

    id: str
    recipe: str
    out: str
    overwrite: bool = False
    created: float = 0.0
    state: State = "waiting"
    phase: str = ""
    total: int = 0
    written: int = 0
    tensors: int = 0
    made: int = 0
    tensor: str = ""
    seconds: float = 0.0
    rate: float = 0.0
    left: float | None = None
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Jobs:
    """The queue and its history, kept in ``folder``. What waits or runs when the server ends is stopped after it."""

    def __init__(self, folder: Path, roots: Roots) -> None:
        self._folder, self._roots = folder, roots
        self._changed = threading.Condition()
        self._jobs = {job.id: job for job in _stored(folder)}
        self._closed = False
        self.version = 0
        self._worker: threading.Thread | None = None

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: job.created)

    def add(self, recipe: str, out: str, *, overwrite: bool) -> Job:
        """Put a merge at the end of the queue. Raises :class:`OutputError` if another one is to be written there."""
        target = str(self._roots.output(out))
        with self._changed:
            if any(
                job.out == target and job.state in ("waiting", "running", "stopping") for job in self._jobs.values()
            ):
                raise OutputError(f"{out}: another merge is to be written there; wait for it, or give another name")
            job = Job(secrets.token_hex(8), recipe, target, overwrite, time.time())
            self._put(job)
            self._start()
            return job

    def resume(self, job: Job) -> None:
        """Let a stopped or failed merge go on."""
        with self._changed:
            if self._jobs[job.id].state in ("stopped", "failed"):
                self._put(replace(job, state="waiting", message=""))
                self._start()

    def stop(self, job: Job) -> None:
        """Stop a merge so that it can go on later; returns before it stands."""
        with self._changed:
            now = self._jobs[job.id]
            if now.state in ("waiting", "running"):
                self._put(replace(now, state="stopped" if now.state == "waiting" else "stopping"))

    def forget(self, job: Job) -> None:
        """Take a merge that does not run out of the history, and discard what it left unfinished."""
        with self._changed:
            if self._jobs[job.id].state in ("running", "stopping"):
                raise OutputError(f"{job.out}: is being written; stop it first")
            if self._left_something(self._jobs[job.id]):
                api.clean(self._roots.output(job.out))
            del self._jobs[job.id]
            (self._folder / f"{job.id}.json").unlink(missing_ok=True)
            self.version += 1

    def _left_something(self, job: Job) -> bool:
        """Whether what lies unfinished at a job's place is its own: it began to write, and no other goes on there."""
        shared = any(other.out == job.out for other in self._jobs.values() if other.id != job.id)
        return job.state in ("stopped", "failed") and job.total > 0 and not shared

    def get(self, number: str) -> Job | None:
        """The job of that id."""
        with self._changed:
            return self._jobs.get(number)

    def close(self) -> None:
        """Stop what runs, resumably, and wait until it stands."""
        with self._changed:
            self._closed = True
            for job in [job for job in self._jobs.values() if job.state in ("waiting", "running", "stopping")]:
                self._put(replace(job, state="stopped" if job.state == "waiting" else "stopping"))
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()

    def _start(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="blockmerge-studio-jobs", daemon=True)
            self._worker.start()

    def _put(self, job: Job) -> None:
        """Set what a job is now, and note it if that changed what a restart should know."""
        with self._changed:
            before = self._jobs.get(job.id)
            self._jobs[job.id] = job
            self.version += 1
            if before is None or (before.state, before.phase) != (job.state, job.phase):
                _store(self._folder, job)
            self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._merge(job)
                end: dict[str, Any] = {"state": "done", "left": None}
            except KeyboardInterrupt:
                end = {"state": "stopped", "message": "", "left": None}
            except (BlockmergeError, OSError, MemoryError) as error:
                said = str(error) or type(error).__name__
                end = {"state": "failed", "message": said, "left": None}
            except Exception as error:  # the queue outlives a mistake of ours
                _log.exception("a merge failed")
                end = {"state": "failed", "message": f"internal error: {type(error).__name__}: {error}", "left": None}
            self._put(replace(self._jobs[job.id], phase="", **end))

    def _next(self) -> Job | None:
        """The oldest job that waits, set running; None when the server ends."""
        with self._changed:
            while not self._closed:
                waiting = [job for job in self._jobs.values() if job.state == "waiting"]
                if waiting:
                    job = replace(min(waiting, key=lambda job: job.created), state="running", phase="planning")
                    self._put(job)
                    return job
                self._changed.wait()
            return None

    def _merge(self, job: Job) -> None:
        recipe = parse_recipe(job.recipe, "recipe.yaml")
        self._roots.check_recipe(recipe)  # the roots may be others than when it was queued
        out = self._roots.output(job.out)
        api.merge(api.plan(recipe, quiet=True), out, overwrite=job.overwrite, on_event=_Listener(self, job.id))

    def hear(self, number: str, change: Mapping[str, Any], *, last: bool = False) -> None:
        """Note how far a job is, at the ``last`` that it is finished.

        Raises KeyboardInterrupt if it is to stop: to a merge that is Ctrl-C, after which it can go on.
        """
        with self._changed:
            job = self._jobs[number]
            self._put(replace(job, **change))
            if job.state == "stopping" and not last:
                raise KeyboardInterrupt


class _Listener:
    """From the events of a merge to what a job shows. A resumed run counts its rate from where it began."""

    def __init__(self, jobs: Jobs, number: str) -> None:
        self._jobs, self._number = jobs, number
        self._total, self._first, self._made, self._last = 0, -1, 0, ""

    def __call__(self, event: Event) -> None:
        change: dict[str, Any] = {}
        match event:
            case Started():
                self._total = event.bytes_to_write
                change = {"phase": "merging", "total": event.bytes_to_write, "tensors": event.tensors, "made": 0}
                change |= {"seconds": 0.0, "rate": 0.0, "left": None}
            case TensorDone():  # there may be thousands a second; the next progress tells of them
                self._made, self._last = self._made + 1, event.name
                return
            case Progress():
                change = self._progress(event)
            case Publishing():
                change = {"phase": "saving", "written": self._total, "left": None}
            case Finished():
                seconds = event.seconds_merging + event.seconds_publishing
                rate = (self._total - max(self._first, 0)) / seconds if seconds > 0 else 0.0
                change = {"written": self._total, "made": self._made, "seconds": seconds, "rate": rate, "left": None}
            case _:
                return
        self._jobs.hear(self._number, change, last=isinstance(event, Finished))

    def _progress(self, event: Progress) -> dict[str, Any]:
        if self._first < 0:
            self._first = event.bytes_written if event.bytes_read == 0 else 0
        rate = (event.bytes_written - self._first) / event.seconds if event.seconds > 0 else 0.0
        left = (self._total - event.bytes_written) / rate if rate > 0 else None
        change = {"written": event.bytes_written, "seconds": event.seconds, "rate": rate, "left": left}
        return change | {"made": self._made, "tensor": self._last}


def _store(folder: Path, job: Job) -> None:
    """Write the file of ``job`` in one step."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = folder / f"{job.id}.json.new"
    unfinished.write_text(json.dumps(job.to_json()), encoding="utf-8")
    unfinished.replace(folder / f"{job.id}.json")


def _stored(folder: Path) -> list[Job]:
    """The jobs of earlier runs; what was waiting or running is stopped. Files that are none of ours are left alone."""
    found: list[Job] = []
    for path in folder.glob("*.json") if folder.is_dir() else ():
        try:
            entries = read_object(path)
        except FormatError:
            continue
        job = _restored(path.stem, entries)
        if job is not None:
            found.append(job)
    return found


def _restored(number: str, entries: Mapping[str, Any]) -> Job | None:
    kinds: dict[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "float": (int, float), "int": int}
    kinds |= {"State": str, "float | None": (int, float, type(None))}
    known = {field.name: kinds[str(field.type)] for field in fields(Job)}
    if set(entries) != set(known) or not all(isinstance(entries[name], kind) for name, kind in known.items()):
        return None
    if entries["id"] != number or entries["state"] not in get_args(State):
        return None
    job = Job(**cast(Any, entries))
    return replace(job, state="stopped", left=None) if job.state in ("waiting", "running", "stopping") else job
