"""Where a job is handed in and its events come out: the backend's side of one engine or of many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from backends.local.failures import as_ours
from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.line import Line, Ticket
from generation.errors import JobCancelled, PlaygroundError
from generation.events import Event, Finished
from generation.result import GenerationResult


class Desk(Protocol):
    """Something that makes images of jobs: one engine behind a line, or a pool of them."""

    def start(self) -> None:
        """Begin to get ready for the first job; returns at once."""
        ...

    def stream(self, job: Job, owner: str) -> AsyncIterator[Event]:
        """`Queued* Running* Finished`; closing it stops the job within one step.

        Raises:
            PlaygroundError: what kept the job from being done; the desk goes on.
        """
        ...

    async def close(self) -> None:
        """End the running job and give the waiting ones up, in bounded time."""
        ...


class KeptEngine(Protocol):
    """One engine and how it is kept: `process.EngineProcess`."""

    def start(self) -> None:
        """Begin to get ready; returns at once."""
        ...

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """One job, in the caller's thread; no two at a time."""
        ...

    def close(self) -> None:
        """End it, the running job included; a `run` from now on raises."""
        ...


class Heard:
    """What is told of a job in any thread, for whoever follows it in this loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Event | BaseException] = asyncio.Queue()

    def hear(self, told: Event | BaseException) -> None:
        """An event, or what ended the job; at the end the loop may be gone."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._told.put_nowait, told)

    async def next(self) -> Event:
        """The next event, the last of which is `Finished`.

        Raises:
            PlaygroundError: what ended the job.
        """
        told = await self._told.get()
        if isinstance(told, BaseException):
            raise _for_people(told) from told
        return told


class EngineDesk:
    """One engine, with a line in front of it."""

    def __init__(self, engine: KeptEngine) -> None:
        self._engine = engine
        self._line = Line(engine.run)

    def start(self) -> None:
        """Let the engine get ready."""
        self._engine.start()

    async def stream(self, job: Job, owner: str) -> AsyncIterator[Event]:
        """Wait in line, then follow the engine."""
        heard = Heard()
        ticket = Ticket(job, heard.hear, owner)
        self._line.join(ticket)
        event: Event | None = None
        try:
            while not isinstance(event, Finished):
                event = await heard.next()
                yield event
        finally:
            self._line.leave(ticket)

    async def close(self) -> None:
        """The engine first: the line then has nothing to wait for."""
        await asyncio.to_thread(self._engine.close)
        await asyncio.to_thread(self._line.close)


def _for_people(failure: BaseException) -> PlaygroundError:
    found = as_ours(failure)
    return JobCancelled() if isinstance(found, Stopped) else found
