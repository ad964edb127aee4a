"""Puts our script at the very start of the page.

`launch(head=…)` comes too late: Gradio's script adds it to the page after it
has chosen the language and painted the theme.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SCRIPT: Final = (Path(__file__).parent / "assets" / "early.js").read_bytes()
ANCHOR: Final = b"<head>"


class EarlyScript:
    """ASGI middleware that adds the script to the page itself, and to nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET"
        await self.app(scope, receive, _Insertion(send) if is_page else send)


class _Insertion:
    """Holds the answer's start back until its first bytes are there."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if Headers(scope=message).get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif self._start is not None:
            start, self._start = self._start, None
            message = _with_script(start, message)
            await self._send(start)
        await self._send(message)


def _with_script(start: Message, message: Message) -> Message:
    """The first part of the body with the script in it, its length corrected."""
    script = b"<script>" + SCRIPT + b"</script>"
    body = message.get("body", b"").replace(ANCHOR, ANCHOR + script, 1)
    headers = MutableHeaders(scope=start)
    if "content-length" in headers:
        grown = len(body) - len(message.get("body", b""))
        headers["content-length"] = str(int(headers["content-length"]) + grown)
    return {**message, "body": body}
