"""ASGI middleware that closes what Gradio leaves open.

Each rule answers something that was tried against Gradio 6: see the comments.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generation.imagefile import MAX_BYTES
from lora_registry.parts import MAX_FILE
from ui.cookies import YEAR, is_https, set_cookie
from ui.visitor import COOKIE, UNNAMED, is_token, new_token

MAX_BODY: Final = MAX_BYTES + 2**20
IMPERSONAL: Final = ("/healthz", "/owner")  # no visitor's: who asks there gets no name
LARGER: Final = {"/adapter": MAX_FILE}  # a body of its own, written to disk as it comes

# file=http… fetches any address and serves it on our origin; proxy= does so for Spaces;
# deep_link writes every value of a session, passwords too, to a file anyone can fetch;
# pwa_icon resizes to any size that is asked for; process_recording hands anybody's upload
# to ffmpeg; dev/reload is a stream without an end; stream and upload_progress, which no
# part of this page uses, tell of anybody's stream and upload.
_CLOSED: Final = re.compile(
    r"/(file=https?:|file/https?:|proxy=|deep_link|pwa_icon|monitoring|process_recording"
    r"|dev/reload|gradio_api/stream/|upload_progress)",
    re.IGNORECASE,
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
# Gradio answers a range of a file with all headers of the request as its own: a script on
# the page could read there what HttpOnly keeps from it, and a proxy could store it.
_ECHOED: Final = ("cookie", "authorization")


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
            await refusal(scope, receive, _decorated(send))
            return
        token = self._name_visitor(scope)
        answer = _decorated(send, token, secure=is_https(scope))
        await self.app(scope, _Capped(receive, _most(scope)), answer)

    def _name_visitor(self, scope: Scope) -> str | None:
        """Give a first request its cookie already, so that its own answer has an owner."""
        cookies = Headers(scope=scope).get("cookie", "")
        # Read as the routes read it: of several by one name the last counts.
        if not self.public or _path(scope) in IMPERSONAL:
            return None
        if is_token(cookie_parser(cookies).get(COOKIE, "")):
            return None
        token = new_token()
        named = "; ".join(filter(None, (cookies, f"{COOKIE}={token}; {UNNAMED}=1")))
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        scope["headers"].append((b"cookie", named.encode("latin-1")))
        return token


class _Capped:
    """A body of at most `most` bytes, also where no length was declared."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._taken = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            raise HTTPException(413, _too_large(self._most))
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
    if not length.isdecimal() or int(length) > _most(scope):
        return PlainTextResponse(_too_large(_most(scope)), 413)
    return None


def _most(scope: Scope) -> int:
    """Bytes that a body may have here."""
    return LARGER.get(_path(scope), MAX_BODY)


def _path(scope: Scope) -> str:
    """Without the prefix under which a proxy serves the page."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _too_large(most: int) -> str:
    return f"Refused: more than {most // 2**20} MiB."


def _is_known_host(host: str, hosts: frozenset[str]) -> bool:
    """A name we were told, or an address: rebinding a foreign name needs a name."""
    name = _split("//" + host).hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in hosts
    return True


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # brackets that hold no address: nobody's
        return urlsplit("")


def _is_foreign(headers: Headers) -> bool:
    """A write that another site's page sent. Programs send neither header and are let in."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    # "null", which a sandboxed frame sends, has no host and is nobody's own.
    host = _split(origin).netloc
    return not host or host not in (headers.get("host"), headers.get("x-forwarded-host"))


def _decorated(send: Send, token: str | None = None, *, secure: bool = False) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name in _ECHOED:
                del headers[name]
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if token is not None:
                cookie = set_cookie(COOKIE, token, seconds=YEAR, secure=secure)
                headers.append("set-cookie", cookie)
        await send(message)

    return answer
