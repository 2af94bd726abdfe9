"""Where two models differ, told while they are read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from blockmerge import api
from blockmerge.errors import BlockmergeError
from blockmerge.execution import Event, Progress, Started
from blockmerge.studio.views import difference_view

__all__ = ["compared"]


def compared(first: str, second: str) -> Iterator[dict[str, Any]]:
    """How far it is (``{"read": ..., "total": ...}``, in bytes) now and then, and at last the differences by tensor.

    Reading stops when nobody takes values any more. Raises :class:`BlockmergeError` as :func:`blockmerge.diff` does.
    """
    told: queue.Queue[dict[str, Any] | BlockmergeError | None] = queue.Queue()
    gone = threading.Event()
    total = 0

    def listen(event: Event) -> None:
        nonlocal total
        if gone.is_set():
            raise KeyboardInterrupt
        if isinstance(event, Started):
            total = event.bytes_to_read
        elif isinstance(event, Progress):
            told.put({"read": event.bytes_read, "total": total})

    def work() -> None:
        try:
            told.put(difference_view(api.diff(first, second, on_event=listen, quiet=True)))
        except BlockmergeError as error:
            told.put(error)
        except KeyboardInterrupt:
            pass
        finally:
            told.put(None)

    threading.Thread(target=work, name="blockmerge-studio-diff", daemon=True).start()
    try:
        while (value := told.get()) is not None:
            if isinstance(value, BlockmergeError):
                raise value
            yield value
    finally:
        gone.set()
