"""The command line: parse, call the api, show. Heavy imports happen inside commands, so that help is instant."""

from __future__ import annotations

import atexit
import gc

from blockmerge.cli.commands import main

__all__ = ["main"]

# What is imported stays: to look for garbage among it again and again took a tenth of the time of a small merge.
gc.set_threshold(200_000)
atexit.register(gc.freeze)
