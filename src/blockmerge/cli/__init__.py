"""The command line: parse, call the api, show. Heavy imports happen inside commands, so that help is instant."""

from __future__ import annotations

import atexit
import gc

from blockmerge.cli.commands import main

__all__ = ["main"]

# What is imported stays: there is no garbage to be looked for among it, least of all when the process ends.
gc.set_threshold(20_000)
atexit.register(gc.freeze)
