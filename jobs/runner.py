"""The runner: journal first, submit once, resume at start.

It owns a thread and an event loop, so that nothing that happens to a page or a
Gradio handler touches a job. What a lost process leaves behind is decided by
the last committed state of each job alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from backends.base import Backend, CancelOutcome, Capabilities, Resources
from generation.allowance import PRIVATE, Allowance, Terms
from generation.errors import (
    BackendUnavailable,
    KeyMissing,
    KeyRevoked,
    PlaygroundError,
    StorageError,
)
from generation.parsing import Parsed
from history.records import IllegalTransition, Job, State
from history.store import History
from jobs.account import allowance, charge_of, is_covered
from jobs.board import Board, JobView
from jobs.fetching import Adapters
from jobs.flight import Flight
from jobs.leftovers import Leftovers
from jobs.sharing import Sharing
from jobs.telling import ENDS, JobStep, Listener, Refusal, tell

T = TypeVar("T")
LAST_POST: Final = 10.0  # seconds that a post on its way is waited for at the end


class Runner:
    """Runs jobs on backends; pages submit to it and watch it, each call for an owner."""

    def __init__(
        self,
        history: History,
        backends: Mapping[str, Backend],
        adapters: Adapters | None = None,
        terms: Terms = PRIVATE,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.history = history
        self.backends = dict(backends)
        self.terms = terms
        self.board = Board()
        self._adapters = adapters
        self._listeners = listeners
        self._keys: dict[str, SecretStr] = {}
        self._flights: dict[str, Flight] = {}
        self._closing = False
        self._leftovers = Leftovers(
            history,
            self.board,
            self._flights,
            listeners,
            resources=self._resources,
            capabilities=lambda job, found: self._backend(job.backend).capabilities(found),
            covered=lambda job, able: is_covered(self.terms, able, history.spending, job.id),
            start=self._start,
            journal=self._journal,
        )
        self._sharing = self._among_others()
        self._disk = ThreadPoolExecutor(4, thread_name_prefix="journal")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True)

    def start(self) -> None:
        """Start the loop and take up every unfinished job that no other process has."""
        self._thread.start()
        self._call(self._begin())

    def close(self) -> None:
        """Detach from all jobs; submitted ones go on at the endpoint and resume next time."""
        self._call(self._detach())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._disk.shutdown()
        if self.history.leases:
            with suppress(StorageError):  # then others wait for them to run out
                self.history.leases.let_go()
        self._loop.close()

    def capabilities(self, backend: str, owner: str) -> Capabilities:
        """What a backend can do for this owner now."""
        return self._backend(backend).capabilities(self._resources(owner))

    def submit(self, parsed: Parsed, owner: str, backend: str) -> Job:
        """Journal a request and start it; returns as soon as it is journaled.

        Raises:
            BackendUnavailable, InvalidRequest, AllowanceError: refused, nothing was sent.
            StorageError: it could not be journaled, so nothing was sent.
        """
        try:
            return self._submit(parsed, owner, backend)
        except PlaygroundError as exc:
            tell(self._listeners, Refusal(exc))
            raise

    def _submit(self, parsed: Parsed, owner: str, backend: str) -> Job:
        request = parsed.request.with_seed()
        self.terms.check(request)
        # Looked up once: the key that decides whose money it is is the key that is sent.
        resources = self._resources(owner)
        able = self._backend(backend).capabilities(resources)
        able.check(request)
        charge = charge_of(self.terms, able, request)
        job = self.history.create(owner, backend, request, parsed.notices, charge)
        self._loop.call_soon_threadsafe(self._start, job, resources)
        return job

    def allowance(self, backend: str, owner: str) -> Allowance | None:
        """What is left for this owner on a backend; None where nothing is counted."""
        able = self.capabilities(backend, owner)
        return allowance(self.terms, able, self.history.spending, owner)

    def view(self, job_id: str, owner: str) -> JobView:
        """A job as it is now; raises NotInHistory for another owner's."""
        if view := self._here(job_id, owner):
            return view
        told = JobView.told_by(self.history.get(job_id, owner))
        shown = self.board.get(job_id, owner)
        if shown and (self._sharing is None or shown.job == told.job):
            return shown
        if self._sharing and (shown or not told.settled):
            self._loop.call_soon_threadsafe(self._sharing.follow, job_id)
        return told

    def _here(self, job_id: str, owner: str) -> JobView | None:
        """A view that nobody else can have made out of date."""
        shared = self._sharing is not None and job_id not in self._flights
        return None if shared else self.board.get(job_id, owner)

    async def watch(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """A job's views until it is settled, for any number of watchers."""
        version = -1
        async with self.board.watching(job_id, owner) as changed:
            while True:
                changed.clear()
                view = self._here(job_id, owner)
                if view is None:
                    view = await asyncio.to_thread(self.view, job_id, owner)
                if view.version != version:
                    version = view.version
                    yield view
                if view.settled:
                    return
                await changed.wait()

    def cancel(self, job_id: str, owner: str) -> CancelOutcome:
        """Ask a job to end; asking twice is asking once."""
        return self._call(self._cancel(self.view(job_id, owner).job))

    def check_again(self, job_id: str, owner: str) -> None:
        """Take up a job that waits, or whose result the endpoint may still hold."""
        self._call(self._check_again(self.view(job_id, owner).job))

    def dismiss(self, job_id: str, owner: str) -> None:
        """Put an UNKNOWN job aside; the endpoint may still bill it."""
        view = self.view(job_id, owner)
        if view.job.state is State.UNKNOWN:
            with suppress(IllegalTransition):  # another click was faster
                job = self.history.advance(job_id, State.CANCELLED)
                tell(self._listeners, JobStep(ENDS[job.state], job))
                self.board.show(view, job=job, problem=None)

    def set_key(self, owner: str, key: SecretStr | None) -> None:
        """Keep a visitor's key in memory, and take up the jobs that waited for one."""
        if key is None:
            self._keys.pop(owner, None)
            return
        self._keys[owner] = key
        with suppress(StorageError):  # the key is kept all the same
            for job in self.history.waiting(owner):
                if isinstance(job.error, KeyRevoked | KeyMissing):
                    self._call(self._check_again(job))

    def take_over(self, old: str, new: str) -> None:
        """All that `old` made is `new`'s from now on, jobs under way and the key as well.

        Raises:
            StorageError: nothing was changed.
        """
        self._call(self._take_over(old, new))
        if (key := self._keys.pop(old, None)) is not None:
            self.set_key(new, key)

    def has_key(self, owner: str) -> bool:
        """Whether this owner entered a key of their own."""
        return owner in self._keys

    # -- on the runner's loop --------------------------------------------------

    def _start(self, job: Job, resources: Resources | None = None) -> None:
        if self._closing or job.id in self._flights:
            return
        flight = Flight(
            job,
            self.backends[job.backend],
            resources or self._resources(job.owner),
            history=self.history,
            board=self.board,
            disk=self._disk,
            adapters=self._adapters,
            listeners=self._listeners,
            resumed=resources is None,
        )
        self._flights[job.id] = flight
        flight.task.add_done_callback(lambda _task: self._landed(flight, job.id))

    def _landed(self, flight: Flight, job_id: str) -> None:
        self._flights.pop(job_id, None)
        if flight.lost and self._sharing:
            self._sharing.follow(job_id)

    async def _go_on(self, job: Job) -> None:
        """Take up a job that waited for its visitor, unless another process was asked to."""
        if self.history.leases and job.id not in self._flights:
            claimed = await self._journal(partial(self.history.leases.claim, job.id))
            if claimed is None:
                return
            job = claimed
        self._start(job)

    def _newest(self, job: Job) -> Job:
        """The job as it is now: on this loop nothing changes it between two awaits."""
        view = self._here(job.id, job.owner)
        return view.job if view else job

    async def _cancel(self, job: Job) -> CancelOutcome:
        job = self._newest(job)
        if job.state is State.SUBMITTED:
            await self._go_on(job)  # one that waits for its visitor can be cancelled too
        if flight := self._flights.get(job.id):
            return await flight.cancel()
        if job.state.is_final or job.state is State.COMPLETED:
            return CancelOutcome.ALREADY_COMPLETED
        if self._sharing:  # who has the job sees the wish, and asks the endpoint
            await self._journal(partial(self.history.request_cancel, job.id))
            self._sharing.follow(job.id)
        return CancelOutcome.UNCONFIRMED

    async def _check_again(self, job: Job) -> None:
        job = self._newest(job)
        if job.can_check_again:
            with suppress(IllegalTransition):  # another click was faster
                job = await self._journal(partial(self.history.advance, job.id, State.SUBMITTED))
        if job.state in (State.SUBMITTED, State.COMPLETED):
            await self._go_on(job)

    def _among_others(self) -> Sharing | None:
        if (leases := self.history.leases) is None:
            return None
        here = (self.board, self._flights, self.backends.keys())
        return Sharing(
            self.history, leases, *here, take_up=self._leftovers.take_up, journal=self._journal
        )

    async def _begin(self) -> None:
        if self._sharing:
            self._sharing.start()
        else:
            await self._take_up_all()

    async def _take_over(self, old: str, new: str) -> None:
        await self._journal(partial(self.history.give, old, new))
        self.board.give(old, new)

    async def _take_up_all(self) -> None:
        for job in await self._journal(self.history.unfinished):
            if job.backend in self.backends:
                await self._leftovers.take_up(job)

    async def _detach(self) -> None:
        self._closing = True
        if self._sharing:
            self._sharing.take_no_more()
        flights = list(self._flights.values())
        for flight in flights:
            if not flight.about_to_post:
                flight.detach()
        await self._posts_answered(flights)
        for flight in flights:
            flight.detach()
        # Not the flights alone: somebody's thread may wait for the answer to a click.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for backend in self.backends.values():
            await backend.close()

    async def _posts_answered(self, flights: list[Flight]) -> None:
        """Give a paid post the time to become a job that we can find again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_POST), self.board.watching() as changed:
                while any(flight.about_to_post for flight in flights):
                    await changed.wait()
                    changed.clear()

    async def _journal(self, change: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._disk, change)

    def _backend(self, name: str) -> Backend:
        if name not in self.backends:
            raise BackendUnavailable(backend=name, reason="there is no such backend")
        return self.backends[name]

    def _resources(self, owner: str) -> Resources:
        return Resources(owner=owner, fal_key=self._keys.get(owner))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the runner's loop from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
