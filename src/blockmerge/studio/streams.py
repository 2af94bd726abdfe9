"""What takes a while, told while it goes on: comparing two models, checking one, downloading one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from blockmerge import api
from blockmerge.errors import BlockmergeError
from blockmerge.execution import Event, Progress, Started, TensorCompared
from blockmerge.sources import locate
from blockmerge.studio.views import finite, model_view

__all__ = ["compared", "fetched", "verified"]

Values = dict[str, Any]


def compared(first: str, second: str) -> Generator[Values]:
    """Where two models differ: ``{"relative": {name: ...}}`` of more and more tensors, and in between how far it is."""

    def work(tell: Callable[[Values], None]) -> Values:
        api.diff(first, second, on_event=_Listener(tell), quiet=True)
        return {"done": True}

    return _told(work)


def verified(out: Path) -> Generator[Values]:
    """Whether a merged model is what its manifest says: how far it is, and at last what differs."""

    def work(tell: Callable[[Values], None]) -> Values:
        found = api.verify(out, on_event=_Listener(tell))
        return {"tensors": found.tensors, "differing": list(found.differing)}

    return _told(work)


def fetched(reference: str) -> Generator[Values]:
    """A model of the Hub while it is downloaded, and at last at a glance."""

    def work(tell: Callable[[Values], None]) -> Values:
        locate(reference, on_bytes=lambda here, total: tell({"read": here, "total": total}))
        return {"model": model_view(reference, api.inspect(reference))}

    return _told(work)


class _Listener:
    """From events to ``{"read": ..., "total": ...}``, in bytes, and the tensors that were compared since."""

    def __init__(self, tell: Callable[[Values], None]) -> None:
        self._tell = tell
        self._total = 0
        self._relative: dict[str, float | None] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._total = event.bytes_to_read
        elif isinstance(event, TensorCompared):
            self._relative[event.name] = finite(event.relative)
        elif isinstance(event, Progress):
            new, self._relative = self._relative, {}
            self._tell({"read": event.bytes_read, "total": self._total} | ({"relative": new} if new else {}))


def _told(work: Callable[[Callable[[Values], None]], Values]) -> Generator[Values]:
    """What ``work``, in a thread of its own, tells, and at last what it returns.

    It is interrupted when nobody takes values any more. Raises :class:`BlockmergeError` as it does.
    """
    told: queue.Queue[Values | BlockmergeError | None] = queue.Queue()
    gone = threading.Event()

    def tell(value: Values) -> None:
        if gone.is_set():
            raise KeyboardInterrupt
        told.put(value)

    def run() -> None:
        try:
            told.put(work(tell))
        except BlockmergeError as error:
            told.put(error)
        except KeyboardInterrupt:
            pass
        finally:
            told.put(None)

    threading.Thread(target=run, name="blockmerge-studio-stream", daemon=True).start()
    try:
        while (value := told.get()) is not None:
            if isinstance(value, BlockmergeError):
                raise value
            yield value
    finally:
        gone.set()
