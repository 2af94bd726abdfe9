"""Showing the events of a merge: a bar on a terminal, a line now and then elsewhere, nothing if asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from blockmerge.cli.terminal import abandon, say, show
from blockmerge.execution import Event, Finished, Progress, Publishing, Started
from blockmerge.planning.explain import size_text

__all__ = ["Display"]

_LINE_EVERY, _NOTABLE = 5.0, 0.1
"""Seconds between lines where there is no terminal, and of compiling that is worth a word."""


class Display:
    """A context that listens: ``with Display(quiet) as show: merge(..., on_event=show)``.

    ``doing`` is the word for what goes on; it is counted in bytes written, or in bytes read where nothing is written.
    With ``last_line`` the end of a merge is told.
    """

    def __init__(self, *, quiet: bool, doing: str = "merging", last_line: bool = True) -> None:
        self._quiet, self._doing, self._last_line = quiet, doing, last_line
        self._bar: Any = None
        self._task: Any = None
        self._total = 0
        self._reads = False
        self._next_line = 0.0

    def __enter__(self) -> Callable[[Event], None]:
        return self._silent if self._quiet else self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()

    def _silent(self, event: Event) -> None:
        del event

    def _show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._reads = event.bytes_to_write == 0
            self._total = event.bytes_to_read if self._reads else event.bytes_to_write
            if sys.stderr.isatty():
                self._start_bar()
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Publishing):
            if self._bar is not None:
                self._bar.update(self._task, description="saving", completed=self._total)
        elif isinstance(event, Finished):
            self._stop_bar()
            if self._last_line:
                try:
                    show(summary(event))
                except OSError:  # the model is there, whoever listens
                    abandon(sys.stdout)

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._doing, total=self._total)
        with suppress(OSError):
            self._bar.start()

    def _progress(self, event: Progress) -> None:
        done = event.bytes_read if self._reads else event.bytes_written
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif event.seconds >= self._next_line + _LINE_EVERY:
            first, self._next_line = self._next_line == 0, event.seconds
            if done:
                say(f"{self._doing}: {_line(done, self._total, event.seconds)}")
            elif first:
                say(f"{self._doing}: starting; kernels are compiled when they are first used")


def _line(done: int, total: int, seconds: float) -> str:
    rate = done / seconds
    left = (total - done) / rate
    return f"{size_text(done)} of {size_text(total)}, {size_text(int(rate))}/s, {left:.0f} s left"


def summary(event: Finished) -> str:
    """The last line of a merge."""
    seconds = event.seconds_merging + event.seconds_publishing
    working = max(event.seconds_merging - event.seconds_compiling, event.seconds_merging / 100, 1e-9)
    rate = size_text(int(event.bytes_written / working))
    text = f"{event.path}: {size_text(event.bytes_written)} merged in {seconds:.1f} s ({rate}/s)"
    if event.seconds_compiling > _NOTABLE:
        kept = "kept for the next time" if event.kept else "not kept: the cache cannot be written (BLOCKMERGE_CACHE)"
        text += f"; {event.seconds_compiling:.1f} s of it compiled kernels, {kept}"
    if event.nonfinite:
        text += f"; {event.nonfinite} tensors hold values that are not finite"
    return text
