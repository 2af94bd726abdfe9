"""The command line: parse, call the api, show. Heavy imports happen inside commands, so that help is instant."""

from __future__ import annotations

from blockmerge.cli.commands import main

__all__ = ["main"]
