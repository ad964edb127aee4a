"""A CONNECT proxy that leads every host to one address: for `HTTPS_PROXY` in tests."""

import asyncio
import contextlib
from collections.abc import Callable

from .wire import READ_SIZE, reset

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Tunnel:
    """Whatever host a client asks for, it reaches `destination`; `on_connect` hears the host."""

    def __init__(self, destination: tuple[str, int], on_connect: Callable[[str], None]) -> None:
        self._destination = destination
        self._on_connect = on_connect

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            host = await _asked_host(reader)
            if host is None:
                writer.write(REFUSED)
            else:
                self._on_connect(host)
                await self._relay(reader, writer)
        writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._destination)
        writer.write(ESTABLISHED)
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            there_writer.close()


async def _asked_host(reader: asyncio.StreamReader) -> str | None:
    line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    return rest.split(" ")[0].rpartition(":")[0] if method == "CONNECT" else None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end. A reset on one leg becomes a reset on the other."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        reset(writer)
