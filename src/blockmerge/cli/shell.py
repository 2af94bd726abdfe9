"""What every command shares: one-line errors, exit codes, signals."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from blockmerge.cli import terminal
from blockmerge.errors import BlockmergeError, Problems

__all__ = ["guarded"]

P = ParamSpec("P")
_MOST_PROBLEMS = 50


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; the argument is its number."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Give ``command`` the option --debug, and turn what it raises into one line (a problem) and an exit code."""

    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.pop("debug", False))
        terminal.prepare()
        with _signals():
            try:
                command(*args, **kwargs)
            except BaseException as error:
                if debug or isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort | SystemExit):
                    raise
                _leave(error)

    return run


@contextmanager
def _signals() -> Generator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP stop what is done here.

    While that is cleaned up, the second one only says so. From the third on they are obeyed again: a disk that hangs
    must not hold anybody.
    """
    arrived = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 2:
            _say("cleaning up, a moment")
            return
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt):
        _say(_with_notes("stopped; nothing was published", error))
        sys.exit(130)
    if isinstance(error, _Terminated):
        _say(_with_notes("terminated; nothing was published", error))
        sys.exit(128 + error.args[0])
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, which is no error
        terminal.abandon(sys.stdout)
        sys.exit(0)
    if isinstance(error, Problems):
        for problem in error.problems[:_MOST_PROBLEMS]:
            _say(str(problem))
        if len(error.problems) > _MOST_PROBLEMS:
            _say(f"and {len(error.problems) - _MOST_PROBLEMS} more problems")
        sys.exit(error.exit_code)
    if isinstance(error, BlockmergeError):
        _say(_with_notes(str(error), error))
        sys.exit(error.exit_code)
    if isinstance(error, OSError):
        _say(_with_notes(f"the system says: {error}", error))
        terminal.abandon(sys.stdout)
        sys.exit(1)
    if isinstance(error, MemoryError):
        _say(_with_notes("out of memory; close other programs or use fewer --threads", error))
        sys.exit(1)
    _say(f"internal error, please report it with the output of --debug: {type(error).__name__}: {error}")
    sys.exit(70)


def _with_notes(line: str, error: BaseException) -> str:
    """The line, and what those that the error passed through had to say."""
    return "; ".join([line, *getattr(error, "__notes__", ())])


def _say(line: str) -> None:
    terminal.say(f"blockmerge: {line}")
