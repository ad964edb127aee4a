"""One job on its way: from its journal row to its stored images, or to its error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from backends.base import Backend, CancelOutcome, Resources
from generation.errors import (
    JobCancelled,
    JobError,
    JobFailed,
    JobOverdue,
    KeyMissing,
    KeyRevoked,
    MediaBroken,
    MediaExpired,
    OutcomeUnknown,
    PlaygroundError,
    StorageError,
)
from generation.events import Event, Finished, Queued, Submitted
from generation.imagefile import CheckedImage
from generation.result import GenerationResult, make_receipt
from history.records import IllegalTransition, Job, LeaseLost, State
from history.store import History
from jobs.board import Board, JobView
from jobs.fetching import Adapters, hand_over
from jobs.telling import Listener, Teller

log = logging.getLogger("playground.jobs")

T = TypeVar("T")
# The job stays open and waits. With a handle nothing is unknown for good: it can be checked again.
HELD: Final = (KeyRevoked, KeyMissing, JobOverdue, MediaBroken, OutcomeUnknown)
GRACE_QUEUED: Final = 3.0  # seconds after a cancel: queued work is removed,
GRACE_RUNNING: Final = 20.0  # running work only signalled, so its result may still come
STORE_AGAIN: Final = 10.0  # seconds between attempts to write on a full disk


class Flight:
    """Follows one job on the runner's loop. Every state is committed before the next action."""

    def __init__(
        self,
        job: Job,
        backend: Backend,
        resources: Resources,
        *,
        history: History,
        board: Board,
        disk: Executor,
        adapters: Adapters | None = None,
        listeners: Sequence[Listener] = (),
        resumed: bool = False,
    ) -> None:
        self._backend = backend
        self._resources = resources
        self._history = history
        self._board = board
        self._disk = disk
        self._adapters = adapters
        self._cancelling: asyncio.Task[CancelOutcome] | None = None
        self._ending = False  # a result or an error is here: too late to stop
        self._teller = Teller(
            listeners,
            resumed=resumed,
            billed=self._billed,
            own_key=resources.fal_key is not None,
        )
        self.view = JobView(job)
        self._show()
        self.detached = False
        self.asked_to_end = False
        self.lost = False
        """Another process has the job now, and this one says nothing more about it."""
        self.over = False
        """Nothing more happens in this flight; the job itself may wait for its visitor."""
        self.task = asyncio.create_task(self._run(), name=job.id)

    @property
    def posting(self) -> bool:
        """A paid post is on its way: cut off now, its outcome would be unknown."""
        return self.view.job.state is State.SUBMITTING and self._billed

    @property
    def about_to_post(self) -> bool:
        """A paid post is on its way or next: cut off now, it may never be known whether it was."""
        begun = self.view.job.state in (State.INTENT, State.SUBMITTING)
        return begun and self._billed and not self.over and self.view.fetching is None

    def detach(self) -> None:
        """Stop following without a word to the backend."""
        self.detached = True
        self.task.cancel()
        if self._cancelling is not None:
            self._cancelling.cancel()

    async def cancel(self) -> CancelOutcome:
        """Ask for the work to end; asking again while that is under way is asking once."""
        return await asyncio.shield(self.begin_cancel())

    def begin_cancel(self) -> asyncio.Task[CancelOutcome]:
        """`cancel`, without waiting for what comes of it."""
        self.asked_to_end = True
        if self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel())
        return self._cancelling

    # -- following -------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._fly()
        except LeaseLost:
            self.lost = self.over = True

    async def _fly(self) -> None:
        try:
            job = self.view.job
            # By its state: a job that is checked again may hold the result of an earlier try.
            if job.state is State.COMPLETED and job.result is not None:
                await self._bring_home(job.result)
            else:
                await self._follow()
        except asyncio.CancelledError:
            if not self.detached:
                await self._end(State.CANCELLED)
        except PlaygroundError as exc:
            await self._failed(exc)
        except LeaseLost:
            raise
        except Exception as exc:
            log.exception("job %s", self.view.job.id)
            await self._failed(self._unexpected(type(exc).__name__))

    def _unexpected(self, reason: str) -> PlaygroundError:
        """A mistake of ours: with a paid post under way, its outcome is unknown."""
        if self._billed and self.view.job.state is not State.INTENT:
            return OutcomeUnknown(reason=reason)
        return JobFailed(reason=reason, billing="not charged")

    async def _follow(self) -> None:
        async with aclosing(await self._events()) as events:  # type: ignore[type-var]
            async for event in events:
                await self._take(event)

    async def _events(self) -> AsyncIterator[Event]:
        job = self.view.job
        if job.handle is not None:
            return self._backend.resume(job.handle, self._resources)
        if self._adapters is not None and job.request.loras:
            await self._bring_adapters(self._adapters)
        # Here alone a failed commit ends the job: nothing has been sent yet.
        change = partial(self._history.advance, job.id, State.SUBMITTING)
        self._show(job=await self._journal(change))
        return self._backend.generate(job.request, self._resources)

    async def _bring_adapters(self, adapters: Adapters) -> None:
        """Find the adapters, and bring them to where the backend reads them."""
        source = self._backend.capabilities(self._resources).lora_source
        if source is None:
            return
        files = await hand_over(
            adapters,
            self.view.job,
            as_file=source == "file",
            show=lambda so_far: self._show(fetching=so_far),
            done=self._teller.fetched,
        )
        resources = replace(self._resources, lora_files=files)
        self._resources = await self._backend.prepare(self.view.job.request, resources)
        self._show(fetching=None)

    async def _take(self, event: Event) -> None:
        if isinstance(event, Submitted):
            await self._commit(State.SUBMITTED, handle=event.handle)
            if self.view.cancelling:  # asked for while the post was on its way
                self._cancelling = asyncio.create_task(self._cancel())
        elif isinstance(event, Finished):
            self._ending = True
            await self._commit(State.COMPLETED, result=event.result)
            # This one, not the journal's: bytes that came with it are not journaled.
            await self._bring_home(event.result)
        else:
            self._show(live=event, problem=None)

    async def _bring_home(self, result: GenerationResult) -> None:
        """Copy the images of a completed job, and store them with their receipt."""
        result, images = await self._fetch_all(result)
        job = self.view.job
        receipt = make_receipt(
            job.request,
            result,
            [image.info for image in images],
            backend=job.backend,
            billed=self._billed,
            notices=job.notices,
            lora_files=self._resources.lora_files,
        )
        self._show(unsaved=images)
        job = await self._insist(partial(self._history.store, job.id, images, receipt))
        self._settle(job=job, problem=None, unsaved=())

    async def _fetch_all(
        self, result: GenerationResult
    ) -> tuple[GenerationResult, tuple[CheckedImage, ...]]:
        """The images of the result; where their address has expired, of a fresh result."""
        try:
            return result, await self._fetch(result)
        except MediaExpired:
            fresh = await self._result_again()
            return fresh, await self._fetch(fresh)

    async def _fetch(self, result: GenerationResult) -> tuple[CheckedImage, ...]:
        return tuple(await asyncio.gather(*map(self._backend.fetch, result.images)))

    async def _result_again(self) -> GenerationResult:
        if self.view.job.handle is not None:
            async for event in self._backend.resume(self.view.job.handle, self._resources):
                if isinstance(event, Finished):
                    return event.result
        raise MediaExpired()

    # -- ending ----------------------------------------------------------------

    async def _failed(self, error: PlaygroundError) -> None:
        self._ending = True
        state = self.view.job.state
        if isinstance(error, HELD) and state in (State.SUBMITTED, State.COMPLETED):
            job = await self._insist(partial(self._history.note, self.view.job.id, error))
            self._settle(job=job, problem=error)
        elif isinstance(error, OutcomeUnknown) and state is State.SUBMITTING:
            await self._end(State.UNKNOWN, error)
        elif self._was_stopped_by(error) and state is not State.COMPLETED:
            await self._end(State.CANCELLED)
        else:
            await self._end(State.FAILED, error)

    def _was_stopped_by(self, error: PlaygroundError) -> bool:
        wished = self.view.cancelling and isinstance(error, JobError)
        return wished or isinstance(error, JobCancelled)

    async def _end(self, state: State, error: PlaygroundError | None = None) -> None:
        change = partial(self._history.advance, self.view.job.id, state, error=error)
        job = self.view.job
        with suppress(StorageError):  # shown all the same; the next start decides again
            job = await self._journal(change)
        self._settle(job=job, problem=error)

    def _settle(self, **changes: Any) -> None:
        """Show how this flight ends: the last word, after which another one may take up the job."""
        self.over = True
        self._show(live=None, fetching=None, cancelling=False, unconfirmed=False, **changes)

    async def _cancel(self) -> CancelOutcome:
        with suppress(StorageError):  # a full disk is no reason to go on paying
            await self._journal(partial(self._history.request_cancel, self.view.job.id))
        if not self.over:
            self._show(cancelling=True, unconfirmed=False)
        outcome = await self._ask_to_end()
        unconfirmed = outcome is CancelOutcome.UNCONFIRMED
        if unconfirmed:
            self._cancelling = None  # may be asked again
        if outcome is not CancelOutcome.REQUESTED and not self.over:
            self._show(cancelling=False, unconfirmed=unconfirmed)
        return outcome

    async def _ask_to_end(self) -> CancelOutcome:
        handle = self.view.job.handle
        if handle is None:
            return await self._stop_unsubmitted()
        try:
            outcome = await self._backend.cancel(handle, self._resources)
        except PlaygroundError:  # no key, or an address that isn't followed: nobody was asked
            return CancelOutcome.UNCONFIRMED
        if outcome is CancelOutcome.REQUESTED:
            await self._last_call()
        return outcome

    async def _stop_unsubmitted(self) -> CancelOutcome:
        """Work inside a stream ends with it; a post in flight must be answered first."""
        if self._ending:
            return CancelOutcome.ALREADY_COMPLETED
        if not self.posting:
            self.task.cancel()
            await asyncio.wait([self.task])
        return CancelOutcome.REQUESTED

    async def _last_call(self) -> None:
        """A result that still comes is kept; silence for the grace means cancelled."""
        queued = isinstance(self.view.live, Queued)
        await asyncio.wait([self.task], timeout=GRACE_QUEUED if queued else GRACE_RUNNING)
        if not self.task.done() and not self._ending:
            self.task.cancel()
            await asyncio.wait([self.task])

    # -- journal and board -----------------------------------------------------

    async def _commit(self, state: State, **values: Any) -> None:
        """Commit what happened at the endpoint; a full disk can't make it unhappen."""
        self._show(job=await self._insist(partial(self._advance, state, **values)))

    def _advance(self, state: State, **values: Any) -> Job:
        """In a thread. Of an earlier attempt only the answer may have been lost."""
        job_id = self.view.job.id
        try:
            return self._history.advance(job_id, state, **values)
        except IllegalTransition:
            job = self._history.reached(job_id, state) if self.view.retrying else None
            if job is None:
                raise
            return job

    async def _insist(self, change: Callable[[], T]) -> T:
        """Write until it works, saying meanwhile why it doesn't."""
        while True:
            try:
                done = await self._journal(change)
            except StorageError as exc:
                self._show(problem=exc, retrying=True)
                await asyncio.sleep(STORE_AGAIN)
            else:
                if self.view.retrying:
                    self._show(problem=None, retrying=False)
                return done

    async def _journal(self, change: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, change)

    def _show(self, **changes: Any) -> JobView:
        view = replace(self.view, **changes)
        self._teller.see(view)  # first: who is shown an end finds it counted
        self.view = self._board.show(view)
        return self.view

    @property
    def _billed(self) -> bool:
        return self._backend.capabilities(self._resources).billed
