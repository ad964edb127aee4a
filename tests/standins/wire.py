"""HTTP/1.1 on an asyncio stream, close enough to the socket to misbehave on purpose.

`h11` parses and frames; everything that a proper server would never do (reset, stop half-way,
announce more than it sends) is done here on the transport.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Self

import h11

READ_SIZE = 64 * 1024
Headers = tuple[tuple[str, str], ...]


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header, by its name in any case."""
    return next((value for key, value in headers if key.lower() == name.lower()), None)


def with_header(headers: Headers, name: str, value: str) -> Headers:
    """The headers with this one set, whatever it was."""
    return (*((k, v) for k, v in headers if k.lower() != name.lower()), (name, value))


@dataclass(frozen=True)
class Head:
    """A request's line and headers."""

    method: str
    target: str
    headers: Headers

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        return header(self.headers, "host") or ""


@dataclass(frozen=True)
class Answer:
    """What a handler wants said. `request_id` and `accepted` are for the ledger, not the wire."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = field(default=None, compare=False)
    request_id: str | None = None
    accepted: bool = False

    @classmethod
    def json(cls, status: int, value: object, headers: Headers = (), **rest: Any) -> Self:
        typed = (("Content-Type", "application/json"), *headers)
        return cls(status, typed, json.dumps(value).encode(), **rest)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: unsent data is dropped and the peer sees `ECONNRESET`."""
    raw = writer.get_extra_info("socket")
    if raw is not None:  # else the peer was faster
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class HttpConnection:
    """One client's connection: requests in, answers out, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER)
        self._method = ""

    async def next_head(self) -> Head | None:
        """The next request, or None when the client is done."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method.decode()
        headers = tuple((k.decode(), v.decode("latin-1")) for k, v in event.headers.raw_items())
        return Head(self._method, event.target.decode("latin-1"), headers)

    async def read_body(self, limit: int | None = None) -> tuple[bytes, bool]:
        """The body, at most `limit` bytes of it, and whether that is all of it."""
        body = bytearray()
        while limit is None or len(body) < limit:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
            else:
                return bytes(body), isinstance(event, h11.EndOfMessage)
        return bytes(body[:limit]), False

    async def _next_event(self) -> object:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                await self._say_continue()
                self._h11.receive_data(await self._reader.read(READ_SIZE))
        except (h11.RemoteProtocolError, OSError):
            return None
        return event

    async def _say_continue(self) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            await self._write(h11.InformationalResponse(status_code=100, headers=[]))

    async def send_head(self, answer: Answer, length: int | None) -> None:
        """Status line and headers. Without a length the body goes out in chunks."""
        headers = answer.headers
        if header(headers, "date") is None:
            headers = with_header(headers, "Date", formatdate(usegmt=True))
        if length is not None:
            headers = with_header(headers, "Content-Length", str(length))
        reason = HTTPStatus(answer.status).phrase if answer.status in _STATUSES else ""
        await self._write(
            h11.Response(
                status_code=answer.status,
                headers=[(k.encode(), v.encode("latin-1")) for k, v in headers],
                reason=reason.encode(),
            )
        )

    async def send(self, data: bytes) -> None:
        if self._method != "HEAD":
            await self._write(h11.Data(data=data))

    async def finish(self) -> bool:
        """End the answer; False when it can't have arrived because the client has left."""
        await self._write(h11.EndOfMessage())
        return not self._writer.is_closing()

    async def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data and not self._writer.is_closing():
            self._writer.write(data)
            await self._writer.drain()

    def reusable(self) -> bool:
        """Make ready for another request, where both sides have ended this one properly."""
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        if done and not self._writer.is_closing():
            self._h11.start_next_cycle()
            return True
        return False

    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self._writer.is_closing() or self._reader.at_eof()

    def reset(self) -> None:
        reset(self._writer)

    def close(self) -> None:
        self._writer.close()


_STATUSES = frozenset(status.value for status in HTTPStatus)
