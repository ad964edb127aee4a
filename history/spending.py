"""The owner's money: reserved before a job is sent, settled with what was billed.

A reservation is the most that a job can cost. It shrinks to the billed units
with the result, goes when surely nothing was charged, and stays in any doubt.
Days are UTC; a job counts for the day on which it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from generation.allowance import LONGEST, Charge, Used
from generation.errors import (
    BackendUnavailable,
    BudgetSpent,
    ContentRefused,
    JobFailed,
    NotSent,
    Refused,
    RequestRejected,
    SpendingStopped,
)
from generation.pricing import cost_of_units
from history.database import open_engine, storage_faults, url_of
from history.records import Job, State
from history.schema import spending as table
from history.schema import spending_switch as switch

_SENT_NOTHING: Final = (NotSent, BackendUnavailable, Refused)
_MAY_BE_BILLED: Final = (RequestRejected, ContentRefused)
_MICRO: Final = 1_000_000

# Before a job is sent; until its price is known; with its price; without one.
RESERVED: Final = "RESERVED"
SENT: Final = "SENT"
SETTLED: Final = "SETTLED"
RELEASED: Final = "RELEASED"


@dataclass(frozen=True, slots=True)
class Day:
    """What all visitors took on one day: dollars known, and dollars held for what may be billed.

    Jobs for which surely nothing was charged aren't in it.
    """

    day: date
    jobs: int
    images: int
    billed_usd: Decimal
    held_usd: Decimal

    @property
    def usd(self) -> Decimal:
        """What counts against the budget."""
        return self.billed_usd + self.held_usd


class Spending:
    """What was taken, and the switch. Thread-safe; holds for all processes on one database.

    Raises:
        DatabaseBusy, DiskFull, StorageError: from every method; nothing was changed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stop(self) -> None:
        """Refuse every further job that costs money; jobs on their way go on to their end."""
        self._turn(True)

    def resume(self) -> None:
        """Allow spending again."""
        self._turn(False)

    @property
    def stopped(self) -> bool:
        """Whether the owner has stopped it."""
        with storage_faults(), self._engine.connect() as connection:
            return bool(connection.execute(select(switch.c.stopped)).scalar_one())

    def today(self, now: datetime | None = None) -> Day:
        """What was taken since 00:00 UTC."""
        now = (now or datetime.now(UTC)).astimezone(UTC)
        with storage_faults(), self._engine.connect() as connection:
            rows = connection.execute(_TOTALS.where(_on_day_of(now))).all()
        billed = sum(row.micro_usd for row in rows if row.status == SETTLED)
        return Day(
            day=now.date(),
            jobs=sum(row.jobs for row in rows),
            images=sum(row.images for row in rows),
            billed_usd=_usd(billed),
            held_usd=_usd(sum(row.micro_usd for row in rows) - billed),
        )

    def taken(self, days: int, now: datetime | None = None) -> Decimal:
        """Dollars of so many days (UTC), today included: billed, and held for what may be."""
        now = (now or datetime.now(UTC)).astimezone(UTC)
        begin = _midnight(now) - timedelta(days=days - 1)
        with storage_faults(), self._engine.connect() as connection:
            micro = connection.execute(_SUM.where(table.c.created >= begin)).scalar_one()
        return _usd(int(micro))

    def used(self, owner: str, now: datetime) -> Used:
        """What one visitor asked for lately, as `Limits` count it."""
        with storage_faults(), self._engine.connect() as connection:
            return _used(connection, owner, now)

    def holds(self, job_id: str) -> bool:
        """Whether a job's charge is reserved, and nothing was sent yet."""
        this = select(table.c.job_id).where(table.c.job_id == job_id, table.c.status == RESERVED)
        with storage_faults(), self._engine.connect() as connection:
            return connection.execute(this).first() is not None

    def _turn(self, stopped: bool) -> None:
        with storage_faults(), self._engine.begin() as connection:
            connection.execute(update(switch).values(stopped=stopped))


@contextmanager
def open_spending(data_dir: Path, database_url: str | None = None) -> Iterator[Spending]:
    """The same beside a running page: the folder's lease is not taken.

    Raises:
        StorageError: the database can't be opened.
    """
    engine = open_engine(url_of(data_dir, database_url))
    try:
        yield Spending(engine)
    finally:
        engine.dispose()


# -- inside the journal's transactions -----------------------------------------


def reserve(connection: Connection, job: Job, charge: Charge) -> None:
    """Take a job's charge, or refuse the job; in the transaction that writes it down.

    Raises:
        SpendingStopped, BudgetSpent: of what costs money.
        TooManyRequests, InvalidRequest: more images than this visitor may have.
    """
    stopped = connection.execute(_LOCK).scalar_one()
    if charge.usd and stopped:
        raise SpendingStopped
    if charge.limits.allowed:
        used = _used(connection, job.owner, job.created)
        charge.limits.check(charge.images, used, job.created)
    needed = _micro(charge.usd)
    if needed:
        _check_budget(connection, charge, needed, job.created)
    row = {
        "job_id": job.id,
        "owner": job.owner,
        "created": job.created,
        "images": charge.images,
        "micro_usd": needed,
        "status": RESERVED,
    }
    connection.execute(_INSERT, row)


def follow(connection: Connection, job: Job) -> None:
    """Carry a job's new state over to its reservation, in the transaction that changed it."""
    if job.state is State.SUBMITTING:
        connection.execute(_SENT, {"job": job.id})
    elif job.state is State.COMPLETED and job.result and job.result.billable_units is not None:
        cost = cost_of_units(job.result.billable_units, job.request.enable_prompt_expansion)
        connection.execute(_SETTLED, {"job": job.id, "cost": _micro(cost)})
    elif job.state in (State.FAILED, State.CANCELLED):
        connection.execute(_UNBILLED if _not_charged(job) else _UNSENT, {"job": job.id})


def _not_charged(job: Job) -> bool:
    """Whether the way in which a job failed says that nothing is billed, sent as it was."""
    if job.result is not None:
        return False
    if job.handle is not None:
        return isinstance(job.error, JobFailed) and job.error.facts["billing"] == "not charged"
    return isinstance(job.error, _SENT_NOTHING) and not isinstance(job.error, _MAY_BE_BILLED)


def _check_budget(connection: Connection, charge: Charge, needed: int, now: datetime) -> None:
    spent = connection.execute(_SUM.where(_on_day_of(now))).scalar_one()
    left = int((charge.budget * _MICRO).to_integral_value(ROUND_FLOOR)) - int(spent)
    if needed > left:
        raise BudgetSpent(left=_shown(max(0, left)), needed=_shown(needed))


def _used(connection: Connection, owner: str, now: datetime) -> Used:
    recent = _USED.where(table.c.owner == owner, table.c.created > now - LONGEST)
    return [(row.created, row.images) for row in connection.execute(recent)]


def _on_day_of(now: datetime) -> ColumnElement[bool]:
    begin = _midnight(now)
    return and_(table.c.created >= begin, table.c.created < begin + timedelta(days=1))


def _midnight(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(UTC).date(), time(), UTC)


# An update that changes nothing: it locks the row in every database, and on SQLite takes
# the one writer's place, so that what is read next is true until the commit.
_LOCK: Final = update(switch).values(stopped=switch.c.stopped).returning(switch.c.stopped)
_INSERT: Final = insert(table)
_THIS: Final = update(table).where(table.c.job_id == bindparam("job"))
_SENT: Final = _THIS.where(table.c.status == RESERVED).values(status=SENT)
_SETTLED: Final = _THIS.where(table.c.status == SENT, table.c.micro_usd > 0).values(
    status=SETTLED, micro_usd=bindparam("cost")
)
_UNSENT: Final = _THIS.where(table.c.status == RESERVED).values(status=RELEASED, micro_usd=0)
_UNBILLED: Final = _THIS.where(table.c.status != SETTLED).values(status=RELEASED, micro_usd=0)
_USED: Final = select(table.c.created, table.c.images)
_SUM: Final = select(func.coalesce(func.sum(table.c.micro_usd), 0))
_TOTALS: Final = (
    select(
        table.c.status,
        func.count().label("jobs"),
        func.sum(table.c.images).label("images"),
        func.sum(table.c.micro_usd).label("micro_usd"),
    )
    .where(table.c.status != RELEASED)
    .group_by(table.c.status)
)


def _micro(usd: Decimal) -> int:
    """Whole millionths, rounded up: nothing is ever counted too low."""
    return int((usd * _MICRO).to_integral_value(ROUND_CEILING))


def _usd(micro: int) -> Decimal:
    return Decimal(micro) / _MICRO


def _shown(micro: int) -> str:
    return f"${_usd(micro):.4f}"
