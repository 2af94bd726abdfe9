"""Where the studio keeps what outlives it: a small file for each merge."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["state_folder"]


def state_folder() -> Path:
    """The folder for the state of this user, as the platform names it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "blockmerge" / "studio"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "blockmerge" / "studio"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "blockmerge" / "studio"
