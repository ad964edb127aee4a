"""ASGI middleware that closes what Gradio leaves open.

Each rule answers something that was tried against Gradio 6: see the comments.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generation.imagefile import MAX_BYTES
from ui.visitor import COOKIE, new_token

MAX_BODY: Final = MAX_BYTES + 2**20

# file=http… fetches any address and serves it on our origin; proxy= does so for Spaces;
# deep_link writes every value of a session, passwords too, to a file anyone can fetch;
# pwa_icon resizes to any size that is asked for.
_CLOSED: Final = re.compile(
    r"/(file=https?:|file/https?:|proxy=|deep_link|pwa_icon|monitoring)", re.IGNORECASE
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def middleware(hosts: Iterable[str], *, public: bool) -> list[Middleware]:
    """For FastAPI's `middleware`; `hosts` are the names that this page answers to."""
    return [Middleware(Gate, hosts=frozenset(hosts), public=public)]


class Gate:
    """Refuses unknown hosts, closed routes, foreign writes, large bodies; names a visitor."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], public: bool) -> None:
        self.app = app
        self.hosts = hosts
        self.public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal(scope, self.hosts)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        token = self._name_visitor(scope)
        await self.app(scope, _Capped(receive), _decorated(send, token, scope["scheme"]))

    def _name_visitor(self, scope: Scope) -> str | None:
        """Give a first request its cookie already, so that its own answer has an owner."""
        if not self.public or COOKIE in SimpleCookie(Headers(scope=scope).get("cookie", "")):
            return None
        token = new_token()
        cookies = Headers(scope=scope).get("cookie")
        named = f"{COOKIE}={token}" + (f"; {cookies}" if cookies else "")
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        scope["headers"].append((b"cookie", named.encode("latin-1")))
        return token


class _Capped:
    """A body of at most MAX_BODY bytes; what exceeds it reads as a broken connection."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._taken = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > MAX_BODY:
            return {"type": "http.disconnect"}
        return message


def _refusal(scope: Scope, hosts: frozenset[str]) -> PlainTextResponse | None:
    headers, path = Headers(scope=scope), scope["path"]
    if not _is_known_host(headers.get("host", ""), hosts):
        return PlainTextResponse("Refused: unknown host.", 400)
    if _CLOSED.search(path) or _CLOSED.search(scope.get("raw_path", b"").decode("latin-1")):
        return PlainTextResponse("Not available.", 404)
    if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_foreign(headers):
        return PlainTextResponse("Refused: this request came from another site.", 403)
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return PlainTextResponse(f"Refused: more than {MAX_BODY // 2**20} MiB.", 413)
    return None


def _is_known_host(host: str, hosts: frozenset[str]) -> bool:
    """A name we were told, or an address: rebinding a foreign name needs a name."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in hosts
    return True


def _is_foreign(headers: Headers) -> bool:
    """A write that another site's page sent. Programs send neither header and are let in."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")}
    return urlsplit(origin).netloc not in hosts


def _decorated(send: Send, token: str | None, scheme: str) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if token is not None:
                # A Space is shown in a frame of another site: Lax would drop the cookie there.
                frame = "; SameSite=None; Secure; Partitioned" if scheme == "https" else ""
                year = 365 * 24 * 3600
                cookie = f"{COOKIE}={token}; Path=/; HttpOnly; Max-Age={year}{frame}"
                headers.append("set-cookie", cookie)
        await send(message)

    return answer
