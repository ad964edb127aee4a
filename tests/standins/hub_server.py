"""Listeners on loopback in a thread of their own, which end with everything they serve."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping

LOOPBACK = "127.0.0.1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listeners:
    """Plain TCP listeners by name; `prepare` runs in their loop before the first connection."""

    def __init__(self, serves: Mapping[str, Serve], ports: Mapping[str, int]) -> None:
        self._serves = serves
        self.ports = dict(ports)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="hub-stand-in", daemon=True
        )
        self._thread.start()
        if not started.wait(10):
            raise TimeoutError("the stand-in did not start")

    def call(self, action: Callable[[], object]) -> None:
        """Do something in the listeners' loop, if it still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(action)

    def stop(self) -> None:
        """Break every connection and end."""
        self.call(lambda: self._stopping.set())
        self._thread.join(10)
        if self._thread.is_alive():
            raise TimeoutError("the stand-in did not end")

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with contextlib.AsyncExitStack() as servers:
            for name, serve in self._serves.items():
                await self._listen(servers, name, serve)
            started.set()
            await self._stopping.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, servers: contextlib.AsyncExitStack, name: str, serve: Serve) -> None:
        async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with contextlib.suppress(asyncio.CancelledError):  # only ever our own, at the end
                await serve(reader, writer)
            writer.transport.abort()

        port = self.ports.get(name, 0)
        server = await asyncio.start_server(tracked, LOOPBACK, port, backlog=512)
        servers.callback(server.close)
        self.ports[name] = server.sockets[0].getsockname()[1]
