"""What happens to the jobs of this process, told once to whoever logs or counts it.

A job that another process works on is told there. Nothing that a listener does
can hurt a job: its mistakes are logged, and end there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from generation.errors import PlaygroundError
from generation.events import Running
from generation.result import cost_of
from history.records import Job, State
from jobs.board import JobView

log = logging.getLogger("playground.jobs")

What = Literal[
    "created", "resumed", "submitting", "submitted", "running", "completed", "waiting",
    "stored", "failed", "cancelled", "unknown",
]  # fmt: skip
"""What became of a job. `resumed`: taken up again, here or by another process than before.
`running`: for the first time. `waiting`: for its visitor; the error says for what."""

ENDS: Final[dict[State, What]] = {
    State.STORED: "stored",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.UNKNOWN: "unknown",
}
_STEPS: Final[dict[State, What]] = {
    State.SUBMITTING: "submitting",
    State.SUBMITTED: "submitted",
    State.COMPLETED: "completed",
    **ENDS,
}


@dataclass(frozen=True, slots=True)
class JobStep:
    """One thing that happened to a job.

    `since_begun` are seconds since it was created here, or `resumed`; `since_sent`
    those since this process sent it, each None where it did not. `usd` is what
    the job cost, told with `completed`, and `own_key` whether a visitor's own
    key pays for it.
    """

    what: What
    job: Job
    error: PlaygroundError | None = None
    since_begun: float | None = None
    since_sent: float | None = None
    resumed: bool = False
    usd: float = 0.0
    own_key: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that did not become a job."""

    error: PlaygroundError


@dataclass(frozen=True, slots=True)
class AdapterFetched:
    """An adapter that a job waited for: the bytes that were copied here, and seconds."""

    size: int
    seconds: float


Happening = JobStep | Refusal | AdapterFetched
Listener = Callable[[Happening], None]
"""Called on any thread, in the middle of a job: it must be quick."""


def tell(listeners: Sequence[Listener], happening: Happening) -> None:
    """Tell each of them, whatever another one does."""
    for listener in listeners:
        try:
            listener(happening)
        except Exception:
            log.exception("telling %s", type(happening).__name__)


class Teller:
    """Makes steps of the views of one flight."""

    def __init__(
        self, listeners: Sequence[Listener], *, resumed: bool, billed: bool, own_key: bool
    ) -> None:
        self._listeners = listeners
        self._resumed = resumed
        self._billed = billed
        self._own_key = own_key
        self._begun = time.monotonic()
        self._sent: float | None = None
        self._ran = False
        self._last: JobView | None = None

    def see(self, view: JobView) -> None:
        """Tell what this view says that the last one didn't."""
        what, self._last = self._what(self._last, view), view
        if what is None:
            return
        now = time.monotonic()
        if what == "submitting":
            self._sent = now
        step = JobStep(
            what,
            view.job,
            error=view.problem,
            since_begun=now - self._begun,
            since_sent=None if self._sent is None else now - self._sent,
            resumed=self._resumed,
            usd=self._cost(view.job) if what == "completed" else 0.0,
            own_key=self._own_key,
        )
        tell(self._listeners, step)

    def fetched(self, size: int, began: float) -> None:
        """An adapter is here, `size` bytes of it since the monotonic time `began`."""
        if size:
            tell(self._listeners, AdapterFetched(size, time.monotonic() - began))

    def _what(self, before: JobView | None, view: JobView) -> What | None:
        if before is None:
            return "resumed" if self._resumed else "created"
        if view.job.state is not before.job.state:
            return _STEPS.get(view.job.state)
        if isinstance(view.live, Running) and not self._ran:
            self._ran = True
            return "running"
        return "waiting" if view.settled and not before.settled else None

    def _cost(self, job: Job) -> float:
        return cost_of(job.request, job.result) if self._billed and job.result else 0.0
