"""The page's side of a pool of GPUs: jobs go to Serve's HTTP proxy, events come back.

The page needs no Ray: it neither has to have the pool's version of it nor of Python.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

import httpx

from backends.local.job import Job
from backends.local.pool.reach import Reach
from backends.local.pool.wire import (
    ADAPTERS,
    HELD,
    REPLICA,
    Incomplete,
    Order,
    adapters_key,
    events,
)
from generation.errors import (
    BackendUnavailable,
    EngineCrashed,
    PlaygroundError,
    PoolLost,
    PoolUnreachable,
)
from generation.events import Event, Queued, Running

log = logging.getLogger("playground.local")

PAUSES: Final = (0.2, 1.0)  # seconds before a job that was lost is tried again: two more times
MOST: Final = 32  # jobs of one visitor in the pool, from this page
CONNECT: Final = 5.0  # seconds
# A job may wait for hours without a word; a machine that is gone is found by its silence below.
KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]
ANYTHING: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)


class _Lost(Exception):
    """A job that may be tried again: it costs nothing, and its seed gives the same image."""


class PoolDesk:
    """Hands jobs to the pool at an address; the `Desk` of `LocalBackend` there.

    A job whose replica died, or that didn't reach one, runs again from its seed,
    `len(pauses)` times at most. Closing a stream closes its connection, by which
    Serve cancels the job: within one step, or at once if it waits.
    """

    def __init__(self, address: str, pauses: Sequence[float] = PAUSES) -> None:
        self._address = address
        self._pauses = pauses
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT),
            transport=httpx.AsyncHTTPTransport(limits=ANYTHING, socket_options=KEEPALIVE),
        )
        self._reach = Reach(address)
        self._jobs: Counter[str] = Counter()  # by owner

    def problem(self) -> BackendUnavailable | None:
        """Why the pool takes no jobs, as far as is known; returns at once."""
        return self._reach.problem()

    def start(self) -> None:
        """Replicas get ready by themselves; look whether they are there."""
        self._reach.problem()

    async def stream(self, job: Job, owner: str) -> AsyncIterator[Event]:
        """Wait in the pool's line, then follow the replica.

        Raises:
            BackendUnavailable: this visitor has too many jobs there.
            PoolUnreachable: nobody took the job.
            PoolLost, EngineCrashed: it was lost again and again.
            PlaygroundError: what the replica raised.
        """
        with self._place_of(owner):
            yield Queued()
            async with aclosing(self._tried_again(job, owner)) as heard:  # type: ignore[type-var]
                async for event in heard:
                    yield event

    async def close(self) -> None:
        """Close the connections, by which the pool cancels what is left."""
        await self._client.aclose()

    @contextmanager
    def _place_of(self, owner: str) -> Iterator[None]:
        """The pool's own line is first come, first served: nobody may fill it."""
        if self._jobs[owner] >= MOST:
            raise BackendUnavailable(backend="local", reason=f"{MOST} of your jobs wait already")
        self._jobs[owner] += 1
        try:
            yield
        finally:
            self._jobs[owner] -= 1
            self._jobs += Counter()  # which forgets those without

    async def _tried_again(self, job: Job, owner: str) -> AsyncIterator[Event]:
        begun = False
        for pause in (*self._pauses, None):
            try:
                async with aclosing(self._attempt(job, owner)) as heard:  # type: ignore[type-var]
                    async for event in heard:
                        begun = begun or isinstance(event, Running)
                        if not (begun and isinstance(event, Queued)):  # no way back into the line
                            yield event
                return
            except (_Lost, EngineCrashed) as exc:
                log.warning("A job was lost in the pool: %s", exc)
                if pause is None:
                    raise self._given_up(exc, begun) from exc
                if begun:
                    yield Running(logs=("The GPU was lost; starting anew on another one",))
                await asyncio.sleep(pause)

    async def _attempt(self, job: Job, owner: str) -> AsyncIterator[Event]:
        order = Order.of(job, owner).model_dump_json()
        key = adapters_key(job)
        headers = {ADAPTERS: key} if key else {}
        try:
            async with self._client.stream(
                "POST", self._address, content=order, headers=headers
            ) as answer:
                if REPLICA not in answer.headers:  # Serve's own, or somebody else's
                    raise _Lost(f"it answered {answer.status_code}")
                told = answer.headers
                log.debug("On %s, adapters %s held: %s", told[REPLICA], key, told.get(HELD))
                async for event in events(answer.aiter_bytes()):
                    yield event
        except (httpx.TransportError, Incomplete) as exc:
            raise _Lost(str(exc) or type(exc).__name__) from exc

    def _given_up(self, failure: Exception, begun: bool) -> PlaygroundError:
        if isinstance(failure, PlaygroundError):
            return failure
        if begun:
            return PoolLost(reason=str(failure), times=len(self._pauses) + 1)
        return PoolUnreachable(backend="local", reason=str(failure))
