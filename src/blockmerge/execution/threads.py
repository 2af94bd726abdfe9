"""Threads that take jobs from one place until there are none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from blockmerge.execution.compute import Buffers

__all__ = ["PULSE", "Workers"]

PULSE = 0.1
"""Seconds between two looks at what goes on."""
Job = TypeVar("Job")


class Workers(Generic[Job]):
    """``threads`` threads that do ``work`` on ``jobs``, each with buffers of its own.

    ``jobs`` is advanced by one thread at a time. Work that has to wait looks at ``stopped`` now and then.
    """

    def __init__(self, jobs: Iterator[Job], work: Callable[[Job, Buffers], None], *, threads: int) -> None:
        self._jobs, self._do = jobs, work
        self._threads = [threading.Thread(target=self._work, name=f"blockmerge-{k}") for k in range(threads)]
        self._working = threads
        self._guard = threading.Lock()
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self.stopped = False

    def run(self, pulse: Callable[[], object]) -> None:
        """Do all jobs, with ``pulse`` called in this thread some ten times a second and at the end.

        Raises the first error after all threads have stopped.
        """
        try:
            for thread in self._threads:
                thread.start()
            while not self._finished.wait(PULSE):
                pulse()
        finally:  # also when a listener raises or Ctrl-C arrives
            self.stopped = True
            for thread in self._threads:
                _join(thread)
        pulse()
        if self._failure is not None:
            raise self._failure

    def _next(self) -> Job | None:
        with self._guard:
            return None if self.stopped else next(self._jobs, None)

    def _work(self) -> None:
        buffers = Buffers()
        try:
            while (job := self._next()) is not None:
                self._do(job, buffers)
        except BaseException as error:
            self._failure = self._failure or error
            self.stopped = True
        finally:
            with self._guard:
                self._working -= 1
                if self._working == 0:
                    self._finished.set()


def _join(thread: threading.Thread) -> None:
    """Wait until a thread has stopped, which it does after the block in its hands; another Ctrl-C changes nothing."""
    while thread.ident is not None and thread.is_alive():
        try:
            thread.join()
        except BaseException:  # a second signal
            continue
