"""What an earlier process, or another one, left unfinished, and how each of it goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from backends.base import Capabilities, Resources
from generation.errors import NotSent, OutcomeUnknown, PlaygroundError
from history.records import Job, State
from history.store import History
from jobs.board import Board, JobView
from jobs.flight import Flight
from jobs.telling import ENDS, JobStep, Listener, tell

FRESH: Final = timedelta(minutes=10)  # after which nobody expects a job that was never sent


class Leftovers:
    """Takes up unfinished jobs on the runner's loop, by the last committed state of each alone."""

    def __init__(
        self,
        history: History,
        board: Board,
        flights: Mapping[str, Flight],
        listeners: Sequence[Listener],
        *,
        resources: Callable[[str], Resources],
        capabilities: Callable[[Job, Resources], Capabilities],
        covered: Callable[[Job, Capabilities], bool],
        start: Callable[[Job, Resources | None], None],
        journal: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._history = history
        self._board = board
        self._flights = flights
        self._listeners = listeners
        self._resources = resources
        self._capabilities = capabilities
        self._covered = covered
        self._start = start
        self._journal = journal

    async def take_up(self, job: Job) -> None:
        """Go on with a job whose process is gone, or say what became of it."""
        if job.state is State.UNKNOWN:
            self._board.show(JobView(job, problem=job.error))
        elif job.handle is None and not self._able(job).billed:
            self._start(await self._journal(partial(self._history.rewind, job.id)), None)
        elif job.state is State.INTENT:
            await self._send_late(job)
        elif job.state is State.SUBMITTING:
            lost = OutcomeUnknown(reason="the playground was closed while sending")
            await self._close(job, State.UNKNOWN, lost)
        else:
            self._start(job, None)
        flight = self._flights.get(job.id)
        if flight and job.cancel_requested and job.state is not State.COMPLETED:
            flight.begin_cancel()  # the wish may not have reached the endpoint

    async def _send_late(self, job: Job) -> None:
        """Send what another process couldn't, if somebody waits for it and its money is there."""
        resources = self._resources(job.owner)
        able = self._capabilities(job, resources)
        covered = partial(self._covered, job, able)
        if self._history.leases and _is_fresh(job) and await self._journal(covered):
            self._start(job, resources)
        else:
            await self._close(job, State.FAILED, NotSent(reason="the playground was closed"))

    async def _close(self, job: Job, state: State, error: PlaygroundError) -> None:
        job = await self._journal(partial(self._history.advance, job.id, state, error=error))
        tell(self._listeners, JobStep(ENDS[state], job, error))
        self._board.show(JobView(job, problem=error))

    def _able(self, job: Job) -> Capabilities:
        return self._capabilities(job, self._resources(job.owner))


def _is_fresh(job: Job) -> bool:
    """Whether its visitor may still be waiting for it."""
    return datetime.now(UTC) - job.created < FRESH
