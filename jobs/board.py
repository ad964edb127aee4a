"""What is live about the jobs in flight, for watchers on any thread and event loop."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from generation.errors import PlaygroundError
from generation.events import Queued, Running
from generation.imagefile import CheckedImage
from history.records import Job
from jobs.fetching import Fetching

REMEMBERED: Final = 600.0  # seconds that a settled job stays here for late watchers
SWEEP: Final = 10.0  # seconds between two looks for those that stayed long enough


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as a watcher sees it: the journal's row, and what is live about it.

    `problem` says why it waits or ended badly. `retrying`: the journal doesn't
    take a change yet, and the job goes on by itself once it does. `unconfirmed`:
    the last request to cancel got no clear answer, and may be asked again.
    `unsaved` are images that are here but not on disk yet; `fetching` is what
    the job waits for before anything is sent. `version` grows with
    every change of any job; `changed` is the monotonic time of the last one, in
    seconds.
    """

    job: Job
    live: Queued | Running | None = None
    problem: PlaygroundError | None = None
    cancelling: bool = False
    unconfirmed: bool = False
    retrying: bool = False
    unsaved: tuple[CheckedImage, ...] = ()
    fetching: Fetching | None = None
    version: int = 0
    changed: float = 0.0

    @classmethod
    def told_by(cls, job: Job) -> Self:
        """What the journal's row alone tells, where nobody here follows the job."""
        open_wish = job.cancel_requested and not job.state.is_final and job.error is None
        return cls(job, problem=job.error, cancelling=open_wish)

    @property
    def settled(self) -> bool:
        """Nothing changes any more unless a person does something."""
        return self.job.state.is_final or (self.problem is not None and not self.retrying)


@dataclass(frozen=True, eq=False, slots=True)
class _Watcher:
    """Who is woken: by any change, or only by those of one job or one owner's jobs."""

    loop: asyncio.AbstractEventLoop
    changed: asyncio.Event
    job_id: str | None
    owner: str | None

    def wake(self, view: JobView) -> None:
        """Wake it, if this change is one of those it waits for."""
        if self.job_id in (None, view.job.id) and self.owner in (None, view.job.owner):
            with suppress(RuntimeError):  # the loop is closed: nobody waits there
                self.loop.call_soon_threadsafe(self.changed.set)


class Board:
    """The newest view of each job in flight. Any thread may write, read and wait."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)  # versions count from here; another process, other counts
        self._views: dict[str, JobView] = {}
        self._versions = itertools.count(1)
        self._given: dict[str, str] = {}  # by job: its present owner, whatever its flight thinks
        self._watchers: set[_Watcher] = set()
        self._swept = 0.0

    def show(self, view: JobView, **changes: Any) -> JobView:
        """Replace a job's view and wake the watchers."""
        now = time.monotonic()
        view = replace(view, **changes, version=next(self._versions), changed=now)
        owner = self._given.get(view.job.id, view.job.owner)
        if owner != view.job.owner:
            view = replace(view, job=replace(view.job, owner=owner))
        self._views[view.job.id] = view
        if now - self._swept > SWEEP:
            self._swept = now
            self._forget_before(now - REMEMBERED)
        for watcher in tuple(self._watchers):
            watcher.wake(view)
        return view

    def give(self, old: str, new: str) -> None:
        """Show an owner's jobs to another from now on, and no longer to the first."""
        for view in self.views(old):
            self._given[view.job.id] = new
            self.show(view)

    def get(self, job_id: str, owner: str) -> JobView | None:
        """A job's view, if it is here and this owner's."""
        view = self._views.get(job_id)
        return view if view and view.job.owner == owner else None

    def newest(self, job_id: str) -> JobView:
        """A job's view, whoever owns it: for the runner alone."""
        return self._views[job_id]

    def views(self, owner: str, since: int = 0) -> list[JobView]:
        """An owner's jobs that changed after version `since`, oldest first."""
        views = tuple(self._views.values())
        mine = (view for view in views if view.job.owner == owner and view.version > since)
        return sorted(mine, key=lambda view: view.job.id)

    async def changes(self, owner: str, since: int, timeout: float) -> list[JobView]:
        """`views`, waiting up to `timeout` seconds for the first change."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self.watching(owner=owner) as changed:
                while not self.views(owner, since):
                    changed.clear()
                    await changed.wait()
        return self.views(owner, since)

    def watched(self) -> frozenset[str]:
        """Owners of whom somebody here waits for a change."""
        watchers = tuple(self._watchers)
        return frozenset(watcher.owner for watcher in watchers if watcher.owner is not None)

    @asynccontextmanager
    async def watching(
        self, job_id: str | None = None, owner: str | None = None
    ) -> AsyncIterator[asyncio.Event]:
        """An event of this loop that is set at every change, of one job or one owner if given."""
        watcher = _Watcher(asyncio.get_running_loop(), asyncio.Event(), job_id, owner)
        self._watchers.add(watcher)
        try:
            yield watcher.changed
        finally:
            self._watchers.discard(watcher)

    def _forget_before(self, moment: float) -> None:
        views = tuple(self._views.values())  # in one step: another thread may add one meanwhile
        for view in views:
            if view.settled and view.changed < moment:
                self._views.pop(view.job.id, None)
                self._given.pop(view.job.id, None)
