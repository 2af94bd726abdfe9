"""``blockmerge studio``: the page on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from blockmerge.cli.shell import guarded
from blockmerge.cli.terminal import show

__all__ = ["studio"]


@click.command(short_help="Shape a merge by hand in the browser, and run it.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A folder with models, in which merges may be written; several times for several.  [here]",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8642, help="0 for any that is free.  [8642]")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen.  [127.0.0.1]")
@click.option("--state", type=click.Path(path_type=Path), metavar="FOLDER", help="Where merges are noted.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@guarded
def studio(roots: tuple[Path, ...], port: int, host: str, state: Path | None, no_browser: bool) -> None:
    """Shape a merge by hand, on a page in the browser, and run it (extra studio).

    The page is for the one who started it: it needs the token in the address that is printed, listens on this machine
    only unless --host says otherwise, and reads and writes nothing outside the roots.
    """
    from blockmerge.errors import BlockmergeError

    try:
        from blockmerge.studio.launch import launch
        from blockmerge.studio.state import state_folder
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise BlockmergeError("the studio needs its extra: pip install 'blockmerge[studio]'") from error
    launch(
        roots or (Path(),),
        host=host,
        port=port,
        state=state or state_folder(),
        browser=not no_browser,
        say=show,
    )
