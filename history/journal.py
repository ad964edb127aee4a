"""Jobs as rows: every statement of the database, and nothing else."""

from __future__ import annotations

import secrets
import threading
import time
import unicodedata
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Engine,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from generation.allowance import Charge
from generation.errors import PlaygroundError
from generation.request import GenerationRequest
from generation.result import GenerationResult, Receipt
from history import spending
from history.database import storage_faults
from history.records import Job, State, StoredImage
from history.schema import jobs
from history.schema import spending as ledger

MAX_QUERY: Final = 500  # characters; each word is one comparison per row

_HIDDEN = ("deleted", "search_text", "cost_usd", "worker", "lease_until")  # no part of a `Job`
_COLUMNS = [column for column in jobs.c if column.name not in _HIDDEN]
# Built once: putting a statement together costs more CPU than SQLite takes to run it.
_INSERT = insert(jobs)
_UPDATE = update(jobs).returning(*_COLUMNS)
_SELECT = select(*_COLUMNS).order_by(jobs.c.id.desc())
_DELETE = delete(jobs).where(jobs.c.id == bindparam("gone"))


class Ids:
    """Job ids: 14 hex digits of microseconds, which sort by time, and 24 that nobody guesses."""

    def __init__(self, last: str | None) -> None:
        self._lock = threading.Lock()
        self._last = int(last[:14], 16) if last else 0

    def next(self) -> str:
        """An id above every earlier one, also after the clock was set back."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return f"{self._last:014x}{secrets.token_hex(12)}"


class Journal:
    """The table of jobs. Thread-safe; every method is one transaction.

    Raises:
        DatabaseBusy, DiskFull, StorageError: from every method; nothing was changed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest_id(self) -> str | None:
        """The highest id ever given, or None."""
        with storage_faults(), self._engine.connect() as connection:
            return connection.execute(select(func.max(jobs.c.id))).scalar()

    def add(self, job: Job, charge: Charge | None = None, **claim: Any) -> None:
        """Write a new job down, together with what it takes of the owner's.

        `claim` says which process has it: see `Claims`.

        Raises:
            AllowanceError, InvalidRequest: it takes too much; nothing was written.
        """
        values = {
            "id": job.id,
            "owner": job.owner,
            "backend": job.backend,
            "state": job.state.value,
            "created": job.created,
            "updated": job.updated,
            "request": job.request.model_dump(mode="json"),
            "notices": list(job.notices),
            "images": [],
            "favourite": job.favourite,
            "cancel_requested": job.cancel_requested,
            "search_text": _searchable(job.request),
            "cost_usd": 0.0,
        }
        with storage_faults(), self._engine.begin() as connection:
            if charge is not None:
                spending.reserve(connection, job, charge)
            connection.execute(_INSERT.values(claim) if claim else _INSERT, values)

    def change(self, job_id: str, *conditions: ColumnElement[bool], **values: Any) -> Job | None:
        """Set `values` if the row meets the conditions; the new job, or None where it doesn't."""
        changed = self.change_all(jobs.c.id == job_id, *conditions, **values)
        return changed[0] if changed else None

    def change_all(self, *conditions: ColumnElement[bool], **values: Any) -> list[Job]:
        """`change` of every row that meets the conditions, in no order."""
        values["updated"] = datetime.now(UTC)
        computed = {name: v for name, v in values.items() if isinstance(v, ColumnElement)}
        statement = _UPDATE.where(*conditions)
        if computed:  # by the database; these can't be parameters
            statement = statement.values(computed)
            values = {name: value for name, value in values.items() if name not in computed}
        with storage_faults(), self._engine.begin() as connection:
            changed = [_job(row) for row in connection.execute(statement, values).all()]
            if "state" in values:
                for job in changed:
                    spending.follow(connection, job)
        return changed

    def find(self, job_id: str, *conditions: ColumnElement[bool]) -> Job | None:
        """One job."""
        found = self.select(jobs.c.id == job_id, *conditions)
        return found[0] if found else None

    def select(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Job]:
        """Jobs that meet the conditions, newest first."""
        statement = _SELECT.where(*conditions).limit(limit)
        with storage_faults(), self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return [_job(row) for row in rows]

    def total_cost(self, owner: str, since: datetime) -> float:
        """Dollars of the owner's jobs created since then, deleted ones too."""
        statement = select(func.sum(jobs.c.cost_usd)).where(
            jobs.c.owner == owner, jobs.c.created >= since
        )
        with storage_faults(), self._engine.connect() as connection:
            return float(connection.execute(statement).scalar() or 0.0)

    def give(self, old: str, new: str) -> None:
        """Put another owner on every row of one; what they used up counts for the other too."""
        with storage_faults(), self._engine.begin() as connection:
            for table in (jobs, ledger):
                connection.execute(update(table).where(table.c.owner == old).values(owner=new))

    def remove(self, gone: Iterable[Job]) -> None:
        """Forget rows for good."""
        ids = [{"gone": job.id} for job in gone]
        if ids:
            with storage_faults(), self._engine.begin() as connection:
                connection.execute(_DELETE, ids)


# -- conditions ----------------------------------------------------------------


def in_state(*states: State) -> ColumnElement[bool]:
    """In one of these states."""
    return jobs.c.state.in_([state.value for state in states])


def final(yes: bool = True) -> ColumnElement[bool]:
    """Ended, or not."""
    return in_state(*(state for state in State if state.is_final is yes))


def has_handle(yes: bool = True) -> ColumnElement[bool]:
    """Known to its backend by a handle, or not."""
    return jobs.c.handle.is_not(None) if yes else jobs.c.handle.is_(None)


def has_error() -> ColumnElement[bool]:
    """Says why it ended badly, or what it waits for."""
    return jobs.c.error.is_not(None)


def is_one_of(job_ids: Collection[str]) -> ColumnElement[bool]:
    """One of these."""
    return jobs.c.id.in_(job_ids)


def owned_by(owner: str) -> ColumnElement[bool]:
    """The owner's, deleted or not."""
    return jobs.c.owner == owner


def visible_to(owner: str) -> ColumnElement[bool]:
    """The owner's, and not deleted."""
    return and_(owned_by(owner), jobs.c.deleted.is_(None))


def deleted_before(moment: datetime) -> ColumnElement[bool]:
    """Deleted, and longer ago than that."""
    return jobs.c.deleted < moment


def older_than(job_id: str) -> ColumnElement[bool]:
    """Further down the list than that job, whether it still exists or not."""
    return jobs.c.id < job_id


def is_favourite() -> ColumnElement[bool]:
    """Marked by its owner."""
    return jobs.c.favourite.is_(True)


def matches(query: str) -> ColumnElement[bool]:
    """Every word of the query occurs; LIKE's wildcards are letters like any other."""
    words = _fold(query[:MAX_QUERY]).split()
    return and_(True, *(jobs.c.search_text.contains(word, autoescape=True) for word in words))


def _searchable(request: GenerationRequest) -> str:
    return _fold("\n".join([request.prompt, *(lora.path for lora in request.loras)]))


def _fold(text: str) -> str:
    """One spelling for upper and lower case, full and half width, composed and decomposed."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\x00", "")
    return folded.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate fits no database


# -- rows to values ------------------------------------------------------------


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        owner=row.owner,
        backend=row.backend,
        request=GenerationRequest.model_validate(row.request),
        state=State(row.state),
        created=row.created,
        updated=row.updated,
        handle=row.handle,
        result=row.result and GenerationResult.model_validate(row.result),
        error=row.error and PlaygroundError.from_record(row.error),
        notices=tuple(row.notices),
        receipt=row.receipt and Receipt.model_validate(row.receipt),
        images=tuple(StoredImage(**image) for image in row.images),
        favourite=row.favourite,
        cancel_requested=row.cancel_requested,
    )
