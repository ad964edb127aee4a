"""The line of jobs in front of the engine, in a thread of its own; `turns.py` says who is next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from backends.local.job import Job, Stop, Tell, estimated_seconds
from backends.local.turns import Turns, Wish
from generation.errors import BackendUnavailable
from generation.events import Event, Finished, Queued
from generation.result import GenerationResult

LONGEST: Final = 64  # jobs that wait; one visitor's at most half of them
FAREWELL: Final = 20.0  # seconds for a forward, or the reading of a file, that can't be stopped

Work = Callable[[Job, Tell, Stop], GenerationResult]
"""`Engine.run`."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A job's place in the line. `hear` is called with each event, mostly from the line's
    thread, and with the exception that ended the job if one did. `owner` is whose job it is."""

    job: Job
    hear: Callable[[Event | BaseException], None]
    owner: str = ""
    given_up: threading.Event = field(default_factory=threading.Event)
    told: int | None = None

    def tell_position(self, position: int) -> None:
        """Once, until it is another."""
        if position != self.told:
            self.told = position
            self.hear(Queued(position))


class Line:
    """Runs one job after the other. The thread starts with the first job and ends with `close`.

    Of `longest` waiting jobs an owner has at most as many as there are places left, so
    nobody fills the line: one alone gets half of it, and a newcomer always gets in.
    """

    def __init__(self, work: Work, longest: int = LONGEST) -> None:
        self._work = work
        self._longest = longest
        self._turns: Turns[Ticket] = Turns()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._current: Ticket | None = None
        self._closed = False

    def join(self, ticket: Ticket) -> None:
        """Wait for a turn.

        Raises:
            BackendUnavailable: too many wait already, or the line is closed.
        """
        with self._changed:
            self._admit(ticket.owner)
            self._turns.join(ticket, _wish(ticket))
            self._tell_positions()
            self._start()
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Give up: a waiting job goes at once, a running one before its next forward."""
        ticket.given_up.set()
        with self._changed:
            if ticket in self._turns:
                self._turns.leave(ticket)
                self._tell_positions()

    def close(self) -> None:
        """Give all jobs up and wait for the thread to end; it doesn't outlive the process."""
        with self._changed:
            self._closed = True
            for ticket in self._turns:
                ticket.given_up.set()
                self._turns.leave(ticket)
            if self._current is not None:
                self._current.given_up.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(FAREWELL)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="local-engine", daemon=True)
            self._thread.start()

    def _admit(self, owner: str) -> None:
        mine, left = self._turns.held_by(owner), self._longest - len(self._turns)
        if self._closed:
            raise BackendUnavailable(backend="local", reason="it is closing")
        if left <= 0:
            raise BackendUnavailable(backend="local", reason=f"{self._longest} jobs wait already")
        if mine >= left:
            raise BackendUnavailable(backend="local", reason=f"{mine} of your jobs wait already")

    def _tell_positions(self) -> None:
        for position, ticket in enumerate(self._turns.order(), self._current is not None):
            ticket.tell_position(position)

    def _serve(self) -> None:
        while (ticket := self._next()) is not None:
            self._run(ticket)
            with self._changed:
                self._current = None
                self._turns.done()
                self._tell_positions()

    def _next(self) -> Ticket | None:
        """The next job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._turns)
            self._current = None if self._closed else self._turns.next()
            return self._current

    def _run(self, ticket: Ticket) -> None:
        try:
            result = self._work(ticket.job, ticket.hear, ticket.given_up.is_set)
        except Exception as exc:  # whatever a job does, the line goes on
            ticket.hear(exc)
        else:
            ticket.hear(Finished(result))


def _wish(ticket: Ticket) -> Wish:
    files = frozenset(str(lora.local) for lora, _ in ticket.job.loras)
    return Wish(ticket.owner, files, estimated_seconds(ticket.job.request))
