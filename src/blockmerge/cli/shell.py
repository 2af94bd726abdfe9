"""What every command shares: one-line errors, exit codes, signals."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

import click

from blockmerge.errors import BlockmergeError, Problems

__all__ = ["guarded"]

P = ParamSpec("P")


class _Terminated(BaseException):
    """SIGTERM arrived."""


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Give ``command`` the option --debug, and turn what it raises into one line (a problem) and an exit code."""

    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.pop("debug", False))
        if hasattr(signal, "SIGTERM"):
            signal.signal(signal.SIGTERM, _terminate)
        try:
            command(*args, **kwargs)
        except BaseException as error:
            if debug or isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort | SystemExit):
                raise
            _leave(error)

    return run


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _leave(error: BaseException) -> NoReturn:
    if isinstance(error, KeyboardInterrupt):
        _say(_with_notes("stopped; nothing was published", error))
        sys.exit(130)
    if isinstance(error, _Terminated):
        _say(_with_notes("terminated; nothing was published", error))
        sys.exit(143)
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if isinstance(error, Problems):
        for problem in error.problems:
            _say(str(problem))
        sys.exit(error.exit_code)
    if isinstance(error, BlockmergeError):
        _say(_with_notes(str(error), error))
        sys.exit(error.exit_code)
    if isinstance(error, OSError):
        _say(_with_notes(f"the system says: {error}", error))
        sys.exit(1)
    if isinstance(error, MemoryError):
        _say("out of memory; close other programs or use fewer --threads")
        sys.exit(1)
    _say(f"internal error, please report it with the output of --debug: {type(error).__name__}: {error}")
    sys.exit(70)


def _with_notes(line: str, error: BaseException) -> str:
    """The line, and what those that the error passed through had to say."""
    return "; ".join([line, *getattr(error, "__notes__", ())])


def _say(line: str) -> None:
    click.echo(f"blockmerge: {' '.join(line.split())}", err=True)
