"""Which process has a job, where several work on one database.

A job in progress is leased: its row names a worker and until when. Each process
renews the leases of what it works on. Who finds one run out may take the job,
in one statement that no two can win, and from then on every step of the worker
before is refused: each names its worker in the same UPDATE. A job that has
ended, or that waits for its visitor, is nobody's.

The times are the database's: the clocks of the machines may differ.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Engine,
    Interval,
    Update,
    and_,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from history import journal as rows
from history.database import storage_faults
from history.records import Job, State
from history.schema import jobs

SECONDS: Final = 30.0  # that a lease lasts: what a pause of the whole machine may take
BATCH: Final = 20  # jobs taken over at a time: others may want some too


class Claims(Protocol):
    """What every step of a job says about who takes it."""

    @property
    def mark(self) -> str:
        """Part of each file's name, so that a worker who lost a job spoils no file of it."""
        ...

    def mine(self) -> ColumnElement[bool]:
        """Only the worker's own jobs."""
        ...

    def taken(self) -> dict[str, Any]:
        """Columns by which a job is the worker's, from now on for the time of a lease."""
        ...

    def free(self) -> dict[str, Any]:
        """Columns by which a job is nobody's."""
        ...


class Alone:
    """The one process on its database: every job is its own, and nothing is written about it."""

    mark = ""

    def mine(self) -> ColumnElement[bool]:
        return true()

    def taken(self) -> dict[str, Any]:
        return {}

    def free(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Lease:
    """One of several processes: `worker` is its name, `seconds` how long it may be silent."""

    worker: str
    seconds: float = SECONDS

    @property
    def mark(self) -> str:
        return f"-{self.worker}"

    def mine(self) -> ColumnElement[bool]:
        return jobs.c.worker == self.worker

    def taken(self) -> dict[str, Any]:
        until = _now() + literal(timedelta(seconds=self.seconds), Interval())
        return {"worker": self.worker, "lease_until": until}

    def free(self) -> dict[str, Any]:
        return {"worker": None, "lease_until": None}


@dataclass(frozen=True, slots=True)
class Sight:
    """What `Leases.look` found.

    `cancelled` are ids of own jobs that somebody wants to end. `elsewhere` are
    the jobs that other processes work on, and when each was changed last.
    """

    cancelled: frozenset[str]
    elsewhere: dict[str, datetime]


class Leases:
    """The leases of one process. Thread-safe.

    Raises:
        StorageError: from every method; nothing was changed then.
    """

    def __init__(self, engine: Engine, lease: Lease) -> None:
        self.seconds = lease.seconds
        self._engine = engine
        self._lease = lease
        self._journal = rows.Journal(engine)

    def renew(self, job_ids: Collection[str]) -> None:
        """Keep these jobs for another lease, as far as they are still this process's."""
        mine = (self._lease.mine(), rows.is_one_of(job_ids))
        self._execute(update(jobs).where(*mine).values(self._lease.taken()))

    def take_over(self, backends: Collection[str]) -> list[Job]:
        """Take jobs whose worker is gone, as far as they are of these backends; oldest first."""
        left = (
            select(jobs.c.id)
            .where(_run_out(), jobs.c.backend.in_(backends))
            .order_by(jobs.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)  # somebody else is taking that one
        )
        taken = self._journal.change_all(jobs.c.id.in_(left), **self._lease.taken())
        return sorted(taken, key=lambda job: job.id)

    def claim(self, job_id: str) -> Job | None:
        """Take a job that waits for its visitor; None if it has ended or another one has it."""
        nobodys = or_(jobs.c.worker.is_(None), self._lease.mine(), _run_out())
        can_go_on = rows.in_state(State.SUBMITTED, State.COMPLETED)
        return self._journal.change(job_id, can_go_on, nobodys, error=None, **self._lease.taken())

    def let_go(self) -> None:
        """Leave all jobs to whoever takes them first."""
        self._execute(update(jobs).where(self._lease.mine()).values(lease_until=_now()))

    def look(self, owners: Collection[str], job_ids: Collection[str]) -> Sight:
        """Own jobs to be cancelled; of other processes', these owners' and these ids."""
        mine = self._lease.mine()
        wanted = or_(jobs.c.owner.in_(owners), rows.is_one_of(job_ids))
        statement = select(jobs.c.id, jobs.c.updated, mine.label("mine")).where(
            jobs.c.worker.is_not(None),
            or_(and_(mine, jobs.c.cancel_requested), and_(~mine, wanted)),
        )
        with storage_faults(), self._engine.connect() as connection:
            found = connection.execute(statement).all()
        return Sight(
            frozenset(row.id for row in found if row.mine),
            {row.id: row.updated for row in found if not row.mine},
        )

    def _execute(self, statement: Update) -> None:
        with storage_faults(), self._engine.begin() as connection:
            connection.execute(statement)


def _now() -> ColumnElement[datetime]:
    return func.timezone("utc", func.clock_timestamp(), type_=DateTime())


def _run_out() -> ColumnElement[bool]:
    return jobs.c.lease_until < _now()
