"""A stand-in for fal on loopback: the queue, storage and media of one endpoint, over TLS.

In tests, `with FalStandIn() as fal:` runs it in a thread of its own; `fal.environment` leads an
unmodified `fal_client` to it. `python -m tests.standins.fal --directory DIR` runs it as a
process, for tests that kill the other side: it prints one JSON line with its addresses and is
steered through `/_control/…` (see `fal_process`).
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from .certificates import server_context, write_authority
from .fal_control import Control
from .fal_exchange import Exchanges
from .fal_jobs import JobBook, Timing
from .fal_queue import Behaviour, Queue
from .fal_routes import Route, key_guard
from .fal_storage import Storage, StoredFile
from .fault_table import Fault, FaultTable
from .ledger import Ledger
from .tunnel import Tunnel
from .wire import HttpConnection

LOOPBACK = "127.0.0.1"
FAL_HOSTS = (
    "fal.run", "queue.fal.run", "falrun.com", "queue.falrun.com",
    "rest.fal.ai", "v3.fal.media", "v3b.fal.media",
)  # fmt: skip
FOREIGN_HOSTS = ("attacker.example",)
"""Hosts that are not fal's, answered all the same: whoever sends a key there is seen doing it."""
LEDGER_FILE = "ledger.jsonl"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FalStandIn:
    """fal on three loopback ports: TLS, plain HTTP, and a CONNECT tunnel to the TLS one."""

    def __init__(
        self,
        timing: Timing | None = None,
        behaviour: Behaviour | None = None,
        *,
        key: str | None = None,
        directory: Path | None = None,
        port: int = 0,
    ) -> None:
        """`key`: the one key that is good, else any well-formed one. `directory` keeps the CA
        and the ledger's file; without it they vanish with the stand-in."""
        self._cleanup = contextlib.ExitStack()
        self._directory = directory or Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory())
        )
        self._port = port
        self._jobs = JobBook(timing or Timing())
        self._faults = FaultTable()
        self.ledger = Ledger(self._directory / LEDGER_FILE)
        self._control = Control(self._jobs, self._faults, self.ledger)
        self._routes = self._all_routes(behaviour or Behaviour(), key)
        self._authority, self.ca_path = write_authority(self._directory)
        self._ports: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _all_routes(self, behaviour: Behaviour, key: str | None) -> tuple[Route, ...]:
        guard = key_guard(key)
        self._storage = Storage(behaviour.media_host)
        queue = Queue(self._jobs, self._faults, behaviour)
        return self._control.routes() + self._storage.routes(guard) + queue.routes(guard)

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="fal-stand-in", daemon=True
        )
        self._thread.start()
        if not started.wait(10):
            raise TimeoutError("the stand-in did not start")
        return self

    def close(self) -> None:
        """Break every connection and end; the ledger can still be read."""
        with contextlib.suppress(RuntimeError):  # its loop may have ended by itself
            self._loop.call_soon_threadsafe(self._exchanges.stopping.set)
        self._thread.join(10)
        if self._thread.is_alive():
            raise TimeoutError("the stand-in did not end")
        self.ledger.close()
        self._cleanup.close()

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchanges = Exchanges(self._routes, self._faults, self.ledger)
        async with contextlib.AsyncExitStack() as servers:
            await self._listen(servers)
            started.set()
            await self._exchanges.stopping.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, servers: contextlib.AsyncExitStack) -> None:
        names = (*FAL_HOSTS, *FOREIGN_HOSTS, "localhost", LOOPBACK)
        context = server_context(self._authority, names, self._on_hello)
        await self._serve(servers, "https", self._http("https"), self._port, context)
        await self._serve(servers, "http", self._http("http"))
        destination = (LOOPBACK, self._ports["https"])
        tunnel = Tunnel(destination, lambda host: self.ledger.connected("tunnel", host))
        await self._serve(servers, "tunnel", tunnel.serve)

    async def _serve(
        self,
        servers: contextlib.AsyncExitStack,
        name: str,
        serve: Serve,
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with contextlib.suppress(asyncio.CancelledError):  # only ever our own, at the end
                await serve(reader, writer)
            writer.transport.abort()

        server = await asyncio.start_server(tracked, LOOPBACK, port, ssl=context, backlog=512)
        servers.callback(server.close)
        self._ports[name] = server.sockets[0].getsockname()[1]

    def _http(self, scheme: str) -> Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if scheme == "http":
                self.ledger.connected("plain", LOOPBACK)
            await self._exchanges.serve(scheme, HttpConnection(reader, writer))

        return serve

    def _on_hello(self, _: ssl.SSLObject, host: str | None, __: ssl.SSLContext) -> int | None:
        self.ledger.connected("tls", host or LOOPBACK)
        fails = self._faults.take("connect") is not None
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE if fails else None

    # Where it is

    @property
    def address(self) -> str:
        """`host:port` of the TLS listener."""
        return f"{LOOPBACK}:{self._ports['https']}"

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def plain_url(self) -> str:
        """The same without TLS; the control routes are easiest reached here."""
        return f"http://{LOOPBACK}:{self._ports['http']}"

    @property
    def proxy_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['tunnel']}"

    @property
    def environment(self) -> dict[str, str]:
        """Leads a `fal_client` of a new process here by its host variables; not its uploads,
        whose hosts are fixed: for those add `proxy_environment`."""
        hosts = {"FAL_RUN_HOST": self.address, "FAL_QUEUE_RUN_HOST": self.address}
        return hosts | {"SSL_CERT_FILE": str(self.ca_path), "NO_PROXY": f"{LOOPBACK},localhost"}

    @property
    def proxy_environment(self) -> dict[str, str]:
        """Leads every `https` host of a new process here, fal's own names included."""
        trust = {"SSL_CERT_FILE": str(self.ca_path), "NO_PROXY": f"{LOOPBACK},localhost"}
        return {"HTTPS_PROXY": self.proxy_url} | trust

    # What it does

    def inject(self, *faults: Fault) -> None:
        """Let these strike, in this order per stage."""
        self._control.inject(*faults)

    def clear_faults(self) -> None:
        self._faults.clear()

    def hold(self) -> None:
        """Stop time: queue positions and work stand still."""
        self._jobs.clock.hold()

    def release(self) -> None:
        self._jobs.clock.release()

    def advance(self, seconds: float) -> None:
        """Let time jump, held or not."""
        self._jobs.clock.advance(seconds)

    def finish(self, request_id: str) -> None:
        """Complete a job now, held or not."""
        self._jobs.finish(request_id)

    def jobs(self) -> list[dict[str, Any]]:
        """Each job's `request_id, status, cancelled, polls, fetches`, oldest first."""
        return self._control.jobs()

    def files(self) -> dict[str, StoredFile]:
        return dict(self._storage.files)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A loopback port that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))  # bound and never listening
        yield bound.getsockname()[1]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    timing = Timing(options.queue_seconds, options.queue_length, options.job_seconds)
    behaviour = Behaviour(validates=options.validates)
    options.directory.mkdir(parents=True, exist_ok=True)
    placed = {"directory": options.directory, "port": options.port}
    with FalStandIn(timing, behaviour, key=options.key, **placed) as fal:
        print(json.dumps(_announcement(fal)), flush=True)
        done.wait(options.lifetime)


def _announcement(fal: FalStandIn) -> dict[str, Any]:
    return {
        "address": fal.address,
        "url": fal.url,
        "control": f"{fal.plain_url}/_control",
        "proxy": fal.proxy_url,
        "ca": str(fal.ca_path),
        "ledger": str(fal.ca_path.parent / LEDGER_FILE),
        "environment": fal.environment,
        "proxy_environment": fal.proxy_environment,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A stand-in for fal on loopback.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="of the TLS listener; 0: any")
    parser.add_argument("--queue-seconds", type=float, default=0.0)
    parser.add_argument("--queue-length", type=int, default=3)
    parser.add_argument("--job-seconds", type=float, default=2.0)
    parser.add_argument("--key", help="the one key that is good; else any well-formed one")
    parser.add_argument("--validates", choices=("submit", "result"), default="submit")
    parser.add_argument("--lifetime", type=float, default=600.0, help="seconds until it ends")
    return parser


if __name__ == "__main__":
    main()
