"""A job's way from INTENT to its end, one committed step after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_

from generation.errors import NotInHistory, PlaygroundError
from generation.events import Handle
from generation.result import GenerationResult, ImageFile, Receipt
from history import journal as rows
from history.leases import Claims
from history.records import IllegalTransition, Job, LeaseLost, State, StoredImage, sources


@dataclass(frozen=True, slots=True)
class Step:
    """The state to reach and what is kept with it."""

    state: State
    handle: Handle | None = None
    result: GenerationResult | None = None
    error: PlaygroundError | None = None
    receipt: Receipt | None = None

    def __post_init__(self) -> None:
        if self.state is State.COMPLETED and self.result is None:
            raise ValueError("COMPLETED needs a result")
        if self.state in (State.FAILED, State.UNKNOWN) and self.error is None:
            raise ValueError(f"{self.state} needs an error")

    def columns(self) -> dict[str, Any]:
        """What isn't given keeps its value, but an error is over with the next step."""
        columns: dict[str, Any] = {"state": self.state.value, "error": error_column(self.error)}
        if self.handle is not None:
            columns["handle"] = dict(self.handle)
        if self.result is not None:
            columns["result"] = self.result.model_dump(mode="json")
        if self.receipt is not None:
            columns |= {"receipt": self.receipt.as_json(), "cost_usd": self.receipt.cost_usd}
        return columns


def error_column(error: PlaygroundError | None) -> dict[str, Any] | None:
    """An error as the column holds it."""
    return None if error is None else {**error.record()}


def stored_columns(
    images: Sequence[StoredImage], receipt: Receipt, result: GenerationResult | None
) -> dict[str, Any]:
    """The last step: files instead of the megabytes that came inside the answer."""
    slim = result and result.model_copy(update={"images": tuple(map(_slim, result.images))})
    columns = Step(State.STORED, result=slim, receipt=receipt).columns()
    return columns | {"images": [image.as_json() for image in images]}


def _slim(image: ImageFile) -> ImageFile:
    return image.model_copy(update={"url": ""}) if image.url.startswith("data:") else image


class JobSteps:
    """The runner's half of `History`: the runner knows its jobs, so no owner is asked for.

    Where several processes share the journal, every step but `request_cancel`
    raises `LeaseLost` for a job that another one has. A job that waits as
    UNKNOWN or may be checked again is nobody's: whoever takes a step has it.
    """

    def __init__(self, journal: rows.Journal, claims: Claims) -> None:
        self._journal = journal
        self._claims = claims

    def advance(
        self,
        job_id: str,
        state: State,
        *,
        handle: Handle | None = None,
        result: GenerationResult | None = None,
        error: PlaygroundError | None = None,
        receipt: Receipt | None = None,
    ) -> Job:
        """Take one step of `TRANSITIONS`, whoever else tries at the same time.

        What is given is kept; an earlier `error` is cleared by every step.
        SUBMITTED needs a handle, given now or kept before, COMPLETED a result,
        FAILED and UNKNOWN an error.

        Raises:
            IllegalTransition: the job isn't in a state from which this step goes.
            ValueError: something that the state needs is missing.
        """
        if state is State.STORED:
            raise ValueError("STORED is reached through store()")
        values = Step(state, handle, result, error, receipt).columns() | self._claim(state)
        # Who posted and lost the job may still learn its handle: then it isn't UNKNOWN.
        fence = or_(self._claims.mine(), rows.in_state(State.UNKNOWN))
        conditions = [rows.in_state(*(sources(state) - {State.FAILED})), fence]
        if state is State.SUBMITTED and handle is None:
            conditions.append(rows.has_handle())
        job = self._journal.change(job_id, *conditions, **values)
        return job or self._check_again(job_id, state, values)

    def _check_again(self, job_id: str, state: State, values: dict[str, Any]) -> Job:
        """The one step out of FAILED, whose condition isn't a column."""
        job = self._known(job_id)
        if state is State.SUBMITTED and job.can_check_again:
            changed = self._journal.change(job_id, rows.in_state(State.FAILED), **values)
            if changed:
                return changed
        without = " without a handle" if job.handle is None and "handle" not in values else ""
        return self._refuse(job_id, f"going to {state}{without}")

    def reached(self, job_id: str, state: State) -> Job | None:
        """The job, if it is this process's and in that state: a commit may be lost on its way back.

        Only for a state that nobody else could have brought it to.
        """
        return self._journal.find(job_id, rows.in_state(state), self._claims.mine())

    def _claim(self, state: State) -> dict[str, Any]:
        """A job that ended or waits for its visitor is nobody's."""
        over = state.is_final or state is State.UNKNOWN
        return self._claims.free() if over else self._claims.taken()

    def note(self, job_id: str, error: PlaygroundError) -> Job:
        """Say what an unfinished job waits for; it is nobody's, and goes on where its visitor is.

        Raises:
            IllegalTransition: the job has ended.
        """
        mine, free = (rows.final(False), self._claims.mine()), self._claims.free()
        job = self._journal.change(job_id, *mine, error=error_column(error), **free)
        return job or self._refuse(job_id, "noting what it waits for")

    def request_cancel(self, job_id: str) -> Job:
        """Remember the wish to cancel, once or often; a job that has ended stays as it is."""
        job = self._journal.change(job_id, rows.final(False), cancel_requested=True)
        return job or self._known(job_id)

    def rewind(self, job_id: str) -> Job:
        """Back to INTENT, for work that left no trace: see `Job.can_rewind`.

        Only for a backend that never posts, whose work ended with the process;
        anything else might be paid for twice.

        Raises:
            IllegalTransition: there is a handle, or nothing is under way.
        """
        job = self._known(job_id)
        here = (rows.in_state(job.state), rows.has_handle(False), self._claims.mine())
        values = Step(State.INTENT).columns() | {"result": None} | self._claim(State.INTENT)
        rewound = self._journal.change(job_id, *here, **values) if job.can_rewind else None
        return rewound or self._refuse(job_id, "rewinding")

    def unfinished(self) -> list[Job]:
        """Every job that isn't final, oldest first; UNKNOWN and deleted ones too."""
        return self._journal.select(rows.final(False))[::-1]

    def known(self, job_ids: Collection[str]) -> list[Job]:
        """Those of these jobs that exist."""
        return self._journal.select(rows.is_one_of(job_ids))

    def waiting(self, owner: str) -> list[Job]:
        """The owner's jobs that wait for something; the error says for what."""
        return self._journal.select(rows.owned_by(owner), rows.final(False), rows.has_error())

    def _known(self, job_id: str) -> Job:
        job = self._journal.find(job_id)
        if job is None:
            raise NotInHistory
        return job

    def _refuse(self, job_id: str, step: str) -> Job:
        state = self._known(job_id).state
        mine = self._journal.find(job_id, self._claims.mine())
        raise (IllegalTransition if mine else LeaseLost)(job_id, state, step)
