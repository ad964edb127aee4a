"""A runner among others on one database: its leases, their jobs, and what it shows of them.

Once a second one query looks for what concerns this process: own jobs that
somebody wants to end, and other processes' jobs whose owner is watching here.
Those are put on the board as their rows tell them, so that a watcher needs not
know who makes the image.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from generation.errors import StorageError
from history.leases import Leases
from history.records import Job
from history.store import History
from jobs.board import Board, JobView
from jobs.flight import Flight

log = logging.getLogger("playground.jobs")

LOOK: Final = 1.0  # seconds between two looks into the database


class Sharing:
    """What a runner does on its loop for jobs that others could take, and for theirs."""

    def __init__(
        self,
        history: History,
        leases: Leases,
        board: Board,
        flights: Mapping[str, Flight],
        backends: Collection[str],
        *,
        take_up: Callable[[Job], Awaitable[None]],
        journal: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._history = history
        self._leases = leases
        self._board = board
        self._flights = flights
        self._backends = backends
        self._take_up = take_up
        self._journal = journal
        self._followed: dict[str, datetime | None] = {}
        self._look = min(LOOK, leases.seconds / 10)
        self._renewed = 0.0
        self._looked = time.monotonic()
        self._takes_from = 0.0

    def start(self) -> None:
        """Begin, on the runner's loop; it ends with that."""
        self._task = asyncio.create_task(self._run())

    def follow(self, job_id: str) -> None:
        """Show what becomes of a job that this process doesn't have, or has no longer."""
        self._followed[job_id] = None

    def take_no_more(self) -> None:
        """Leave what others have let go to others; called at the end."""
        self._takes_from = float("inf")

    async def _run(self) -> None:
        """Go on until cancelled, whatever happens to the database."""
        while True:
            try:
                await self._round()
            except StorageError as exc:
                log.warning("leases: %s", exc.cause)
                self._give_time()
            except Exception:
                log.exception("leases")
                self._give_time()
            await asyncio.sleep(self._look)

    def _give_time(self) -> None:
        """After an outage or a pause nobody's silence means anything: let others speak first."""
        self._renewed = 0.0
        self._takes_from = max(self._takes_from, time.monotonic() + self._leases.seconds / 2)

    async def _round(self) -> None:
        now = time.monotonic()
        if now - self._looked > self._leases.seconds / 2:
            self._give_time()
        self._looked = now
        if now - self._renewed > self._leases.seconds / 3 and self._flights:
            await self._journal(partial(self._leases.renew, list(self._flights)))
            self._renewed = now
        await self._look_around()
        if now >= self._takes_from:
            await self._take_over()

    async def _look_around(self) -> None:
        ids = {*self._followed, *self._flights}
        look = partial(self._leases.look, self._board.watched(), ids)
        sight = await self._journal(look)
        for job_id in sight.cancelled & self._flights.keys():
            if not self._flights[job_id].asked_to_end:
                self._flights[job_id].begin_cancel()
        for job_id in sight.elsewhere.keys() & self._flights.keys():
            if not self._flights[job_id].posting:  # its answer is worth having, whoever has the job
                self._flights[job_id].detach()
        await self._show(sight.elsewhere)

    async def _show(self, elsewhere: dict[str, datetime]) -> None:
        """Put on the board what has changed, and how those ended that are no longer there."""
        before, self._followed = self._followed, {**elsewhere}
        new = {job_id for job_id, at in elsewhere.items() if before.get(job_id) != at}
        if changed := new | before.keys() - elsewhere.keys():
            try:
                jobs = await self._journal(partial(self._history.known, changed))
            except StorageError:
                self._followed |= dict.fromkeys(changed)  # to be shown at the next look
                raise
            for job in jobs:
                if job.id not in self._flights:
                    self._board.show(JobView.told_by(job))

    async def _take_over(self) -> None:
        for job in await self._journal(partial(self._leases.take_over, self._backends)):
            try:
                await self._take_up(job)
            except Exception:  # not renewed without a flight: it is tried again
                log.exception("job %s", job.id)
