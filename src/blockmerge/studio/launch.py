"""Starting the studio: a free port, a token, the address for the browser, and uvicorn until Ctrl-C."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from blockmerge.errors import BlockmergeError
from blockmerge.studio.roots import Roots
from blockmerge.studio.server import Studio, create_app

__all__ = ["StudioServer", "launch"]


def launch(
    roots: Sequence[Path], *, host: str, port: int, state: Path, browser: bool, say: Callable[[str], object]
) -> None:
    """Serve the studio until it is interrupted.

    :param host: a name or number of this machine; beyond loopback, ``say`` is told a warning.
    :param port: 0 for any free one.
    :param state: folder for the files of merges.
    :param browser: open the page.

    Raises :class:`BlockmergeError` if the address is taken or a root is no folder.
    """
    studio = Studio(Roots(roots), state)
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(32)
    everywhere = host in ("0.0.0.0", "::")
    names = (host, *([socket.gethostname()] if everywhere else []))
    app = create_app(studio, token=token, port=port, hosts=names, any_address=everywhere)
    shown = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/?token={token}"
    if not _is_loopback(host):
        say(
            f"warning: {host} can be reached by other machines; whoever has the token reads the models in the roots "
            "and writes into them, and nothing on the way is encrypted"
        )
    say(f"Blockmerge studio: {address}\nCtrl-C ends it; merges that run can go on later.")
    if browser:
        webbrowser.open(address)
    with listener, suppress(KeyboardInterrupt):  # Ctrl-C is how it ends; uvicorn raises it again when all is closed
        StudioServer(app, studio).run(sockets=[listener])


class StudioServer(uvicorn.Server):
    """uvicorn, which waits for open connections before it ends; those that listen to events are closed first."""

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False)
        )
        self._studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, letting go of listeners."""
        self._studio.leave()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BlockmergeError(
            f"{host}:{port}: cannot be listened on: {error.strerror}; choose another --port"
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
