"""``python -m blockmerge``: the command line."""

from __future__ import annotations

from blockmerge.cli import main

if __name__ == "__main__":
    main(prog_name="blockmerge")
