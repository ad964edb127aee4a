"""The line of jobs in front of the engine: first come, first served, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from backends.local.job import Job, Stop, Tell
from generation.errors import BackendUnavailable
from generation.events import Event, Finished, Queued
from generation.result import GenerationResult

LONGEST: Final = 32  # jobs that wait
FAREWELL: Final = 20.0  # seconds for a forward, or the reading of a file, that can't be stopped

Work = Callable[[Job, Tell, Stop], GenerationResult]
"""`Engine.run`."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A job's place in the line. `hear` is called from the line's thread with each event, and
    with the exception that ended the job if one did."""

    job: Job
    hear: Callable[[Event | BaseException], None]
    given_up: threading.Event = field(default_factory=threading.Event)


class Line:
    """Runs one job after the other. The thread starts with the first job and ends with `close`."""

    def __init__(self, work: Work, longest: int = LONGEST) -> None:
        self._work = work
        self._longest = longest
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._current: Ticket | None = None
        self._closed = False

    def join(self, ticket: Ticket) -> None:
        """Stand at the end.

        Raises:
            BackendUnavailable: too many wait already, or the line is closed.
        """
        with self._changed:
            if self._closed or len(self._waiting) >= self._longest:
                reason = "it is closing" if self._closed else f"{self._longest} jobs wait already"
                raise BackendUnavailable(backend="local", reason=reason)
            self._waiting.append(ticket)
            ticket.hear(Queued(self._position(ticket)))
            self._start()
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Give up: a waiting job goes at once, a running one before its next forward."""
        ticket.given_up.set()
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._tell_positions()

    def close(self) -> None:
        """Give all jobs up and wait for the thread to end; it doesn't outlive the process."""
        with self._changed:
            self._closed = True
            for ticket in (*self._waiting, *([self._current] if self._current else [])):
                ticket.given_up.set()
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(FAREWELL)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="local-engine", daemon=True)
            self._thread.start()

    def _position(self, ticket: Ticket) -> int:
        return self._waiting.index(ticket) + (self._current is not None)

    def _tell_positions(self) -> None:
        for ticket in self._waiting:
            ticket.hear(Queued(self._position(ticket)))

    def _serve(self) -> None:
        while (ticket := self._next()) is not None:
            self._run(ticket)
            with self._changed:
                self._current = None
                self._tell_positions()

    def _next(self) -> Ticket | None:
        """The next job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            self._current = None if self._closed else self._waiting.popleft()
            return self._current

    def _run(self, ticket: Ticket) -> None:
        try:
            result = self._work(ticket.job, ticket.hear, ticket.given_up.is_set)
        except Exception as exc:  # whatever a job does, the line goes on
            ticket.hear(exc)
        else:
            ticket.hear(Finished(result))
