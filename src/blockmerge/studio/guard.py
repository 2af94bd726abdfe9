"""Who may talk to the studio: the person with the token, from a page of the studio itself, in small requests.

A server on a loopback address can be reached by every page that the browser shows. Three checks keep them out, as in
Jupyter: the Host must be ours (or a name that leads here would make a stranger's page one of ours), the Origin must be
that host (or a stranger's page could post), and a cookie or the address must hold a token that only the terminal shows.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "MAX_BODY", "Guard"]

MAX_BODY = 1_000_000
"""Bytes of a request at most; recipes are limited to 200,000."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, framed by others, guessed or kept."""
_SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware around the whole application, files included.

    ``hosts`` are the names that this server answers to, besides loopback; with ``any_address``, numbers too.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, port: int, hosts: Iterable[str] = (), any_address: bool = False
    ) -> None:
        self._app, self._token, self._port = app, token, port
        self._hosts = {"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)}
        self._any_address = any_address
        self.cookie = f"blockmerge-studio-{port}"  # cookies know hosts, not ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        send = _with_headers(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None lets it in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _refuse(403, "this server does not answer to that name; open the address that the terminal shows")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and origin != f"http://{host}":
            return _refuse(403, "requests from other pages are refused")
        if scope["method"] not in _SAFE and site not in ("same-origin", "none"):
            return _refuse(403, "requests from other pages are refused")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:12]) > MAX_BODY:
            return _refuse(413, "the request is too large")
        return self._unknown(scope, headers)

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if (port or 80) != self._port or parts.username is not None or parts.path:
            return False
        return name in self._hosts or (self._any_address and _is_address(name))

    def _unknown(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to those without the cookie: a cookie for the token, or no."""
        if self._matches(_cookies(headers).get(self.cookie, "")):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] not in _SAFE or not self._matches(given):
            return _refuse(403, "the studio is open to its owner: use the address, with the token, from the terminal")
        welcome = RedirectResponse("/", status_code=303)  # the token leaves the address bar
        welcome.set_cookie(self.cookie, self._token, httponly=True, samesite="strict", path="/")
        return welcome

    def _matches(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())


def _refuse(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status_code=status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookies(headers: Headers) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def _bounded(receive: Receive) -> Receive:
    """A request body that ends in an error where it is longer than it may be, whatever its headers promised."""
    left = MAX_BODY

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, "the request is too large")
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return answer
