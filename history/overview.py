"""The whole playground at a glance, for its owner: figures and failures, and nobody's prompt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, Row, Select, func, select

from generation.errors import ErrorRecord, PlaygroundError, StorageError
from history.database import is_sqlite, storage_faults
from history.journal import final, in_state
from history.records import State
from history.schema import jobs
from history.schema import spending_switch as switch

_BY_STATE: Final = select(jobs.c.backend, jobs.c.state, func.count()).group_by(
    jobs.c.backend, jobs.c.state
)


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that hasn't ended. `worker` is the process that has it, where there are several."""

    id: str
    backend: str
    state: State
    created: datetime
    worker: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """How a job ended badly, and when. Where its error quotes the prompt, an ellipsis does."""

    backend: str
    state: State
    at: datetime
    error: PlaygroundError


class Overview:
    """Reads of everybody's jobs. Thread-safe.

    Raises:
        StorageError: from every method.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """Whether the database is there and answers; raises StorageError if not."""
        file = self._engine.url.database
        if is_sqlite(self._engine.url) and not Path(str(file)).is_file():
            raise StorageError  # an open one would still answer, and be lost with us
        self._rows(select(switch.c.stopped))

    def open_by_state(self) -> dict[tuple[str, State], int]:
        """How many jobs have not ended, by backend and state."""
        return self._counts(_BY_STATE.where(final(False)))

    def ended_since(self, moment: datetime) -> dict[tuple[str, State], int]:
        """How many jobs asked for since then have ended, by backend and state."""
        recent = jobs.c.created >= moment
        return self._counts(_BY_STATE.where(final(), recent))

    def spent_since(self, moment: datetime) -> float:
        """US dollars on the receipts of all jobs asked for since then, whoever paid."""
        total = select(func.sum(jobs.c.cost_usd)).where(jobs.c.created >= moment)
        return float(self._rows(total)[0][0] or 0.0)

    def open_jobs(self, limit: int) -> list[OpenJob]:
        """The oldest that have not ended."""
        columns = (jobs.c.id, jobs.c.backend, jobs.c.state, jobs.c.created, jobs.c.worker)
        oldest = select(*columns).where(final(False)).order_by(jobs.c.id).limit(limit)
        return [
            OpenJob(row.id, row.backend, State(row.state), row.created, row.worker)
            for row in self._rows(oldest)
        ]

    def failures(self, limit: int) -> list[Failure]:
        """The last jobs that failed or whose outcome is unknown, newest first."""
        columns = (jobs.c.backend, jobs.c.state, jobs.c.updated, jobs.c.error, jobs.c.request)
        ended = in_state(State.FAILED, State.UNKNOWN)
        last = select(*columns).where(ended).order_by(jobs.c.id.desc()).limit(limit)
        return [
            Failure(row.backend, State(row.state), row.updated, _without_prompt(row))
            for row in self._rows(last)
        ]

    def workers(self) -> dict[str, int]:
        """How many jobs each process has, of those that have any."""
        leased = select(jobs.c.worker, func.count()).where(jobs.c.worker.is_not(None))
        return {row[0]: row[1] for row in self._rows(leased.group_by(jobs.c.worker))}

    def _counts(self, statement: Select[Any]) -> dict[tuple[str, State], int]:
        rows = self._rows(statement)
        return {(row[0], State(row[1])): row[2] for row in rows}

    def _rows(self, statement: Select[Any]) -> list[Any]:
        with storage_faults(), self._engine.connect() as connection:
            return list(connection.execute(statement).all())


def _without_prompt(row: Row[Any]) -> PlaygroundError:
    record: ErrorRecord = row.error
    prompt = str(row.request["prompt"])
    facts = {
        name: fact.replace(prompt, "…") if isinstance(fact, str) and prompt else fact
        for name, fact in record["facts"].items()
    }
    return PlaygroundError.from_record({"type": record["type"], "facts": facts})
