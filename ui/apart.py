"""ASGI middleware that keeps Gradio's sessions, events and files apart by visitor.

Gradio takes whoever knows a session's hash, an event's number or a file's path for
its owner. Here each visitor's hashes are names in a space of their own, and numbers
and paths are good only for the visitor whom they were handed to.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable
from os.path import abspath
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.visitor import Belongings, Visitors

SESSION: Final = "session_hash"
_API: Final = "/gradio_api/"
_FILE: Final = re.compile(r"file[=/](.+)", re.DOTALL)
_EVENT: Final = re.compile(r"call/(?:v2/)?[^/]+/([^/]+)/?")
_HEARTBEAT: Final = re.compile(r"heartbeat/([^/]+)")


class Apart:
    """For a public page; stands behind the Gate, which says who asks."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self.app = app
        self._visitors = visitors
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked(scope)
        if asked is None:
            await self.app(scope, receive, send)
            return
        visit = _Visit(self._visitors, scope, self._secret)
        scope = visit.renamed(scope, asked)
        if scope["method"] == "POST":
            await self._write(visit, asked, scope, receive, send)
        elif visit.may_read(asked):
            await self.app(scope, receive, send)
        else:
            await _not_yours()(scope, receive, send)

    async def _write(
        self, visit: _Visit, asked: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if asked == "upload":
            await self.app(scope, receive, _watched(send, visit.uploaded))
            return
        if Headers(scope=scope).get("content-type", "").lower().startswith("multipart/"):
            await PlainTextResponse("Send JSON.", 415)(
                scope, receive, send
            )  # a form could carry a session past us
            return
        body = await _whole(receive)
        values = _parsed(body)
        if not visit.may_write(values):
            await _not_yours()(scope, receive, send)
            return
        if SESSION in values:
            values[SESSION] = visit.space(values[SESSION])
            body = json.dumps(values).encode()
            MutableHeaders(scope=scope)["content-length"] = str(len(body))
        await self.app(scope, _replayed(body, receive), _watched(send, visit.joined))


class _Visit:
    """One request: whose it is, and what they may name."""

    def __init__(self, visitors: Visitors, scope: Scope, secret: bytes) -> None:
        self._owner = visitors.shown(HTTPConnection(scope))
        self._belongings: Belongings = visitors.belongings
        self._mark = hmac.digest(secret, self._owner.encode(), "sha256").hex()[:32]

    def space(self, session: object) -> object:
        """A session's name within this visitor's own space; nobody else can say it."""
        return f"{session}.{self._mark}" if isinstance(session, str) else session

    def renamed(self, scope: Scope, asked: str) -> Scope:
        """The scope with the sessions of its path and query in the visitor's space."""
        scope = {**scope, "headers": list(scope["headers"])}
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if SESSION in dict(query):
            pairs = [(name, self.space(v) if name == SESSION else v) for name, v in query]
            scope["query_string"] = urlencode(pairs).encode()
        if found := _HEARTBEAT.fullmatch(asked):
            start = scope["path"].removesuffix(found[1])
            scope["path"] = f"{start}{self.space(found[1])}"
            scope["raw_path"] = quote(scope["path"]).encode()
        return scope

    def may_read(self, asked: str) -> bool:
        """Whether a file or an event's messages are this visitor's."""
        if found := _FILE.fullmatch(asked):
            return self._belongings.belongs(abspath(found[1]), self._owner)
        found = _EVENT.fullmatch(asked)
        return found is None or self._belongings.belongs(found[1], self._owner)

    def may_write(self, values: dict[str, Any]) -> bool:
        """Whether the event that a body names is this visitor's."""
        event = values.get("event_id")
        return event is None or self._belongings.belongs(str(event), self._owner)

    def uploaded(self, answer: Any) -> None:
        for path in answer if isinstance(answer, list) else ():
            self._belongings.hand(abspath(str(path)), self._owner)

    def joined(self, answer: Any) -> None:
        if isinstance(answer, dict) and "event_id" in answer:
            self._belongings.hand(str(answer["event_id"]), self._owner)


def _asked(scope: Scope) -> str | None:
    """What is asked of Gradio's API, however the page is mounted; None for anything else."""
    if scope["type"] != "http":
        return None
    _, found, asked = scope["path"].removeprefix(scope.get("root_path", "")).partition(_API)
    return asked if found else None


def _not_yours() -> PlainTextResponse:
    """A new one each time: the Gate puts the visitor's cookie on it."""
    return PlainTextResponse("Not found.", 404, {"Cache-Control": "no-store"})


async def _whole(receive: Receive) -> bytes:
    """A body, whose length the Gate has capped."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):  # Gradio, which parses as we do, will say so
        return {}
    return values if isinstance(values, dict) else {}


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body at once, then whatever comes of the connection."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _watched(send: Send, see: Callable[[Any], None]) -> Send:
    """Shows `see` the answer's JSON before it goes out; a good one is small and whole at once."""
    good = False

    async def answer(message: Message) -> None:
        nonlocal good
        if message["type"] == "http.response.start":
            good = message["status"] == 200
        elif good and not message.get("more_body", False):
            good = False
            see(_json(message.get("body", b"")))
        await send(message)

    return answer


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
