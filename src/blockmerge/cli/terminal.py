"""What people see. It never stops a merge: a terminal may go away, have another encoding, or obey what it is shown."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

import click

from blockmerge.errors import printable

__all__ = ["abandon", "prepare", "say", "show"]

_LONGEST = 4000


def prepare() -> None:
    """Let the standard streams write what they cannot encode as escapes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # somebody may have put another object there, or closed it
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore


def say(line: str) -> None:
    """Put one line on the standard error stream, if anybody is there."""
    text = printable(" ".join(line.split()))
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... ({len(text) - _LONGEST:,} more characters)"
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        abandon(sys.stderr)


def show(text: str) -> None:
    """Put ``text`` on the standard output, its lines as they are and everything else printable.

    Raises :class:`OSError` if it cannot be written: it is what was asked for.
    """
    click.echo("\n".join(map(printable, text.split("\n"))))


def abandon(stream: TextIO) -> None:
    """Write no more to ``stream``; what it still holds would be an error when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
