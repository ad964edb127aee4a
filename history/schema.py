"""The tables. Core, not ORM: a row is written six times and never tracked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

REVISION: Final = "0003"
"""The newest migration; named here so that an up-to-date start imports no Alembic (0.2 s of CPU).

A change of the table is a new file in `migrations/versions` and its name here;
a test compares what the migrations make with what this module says.
"""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC out; stored without a zone, which SQLite doesn't keep."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


# SQL NULL for None, so that IS NULL means the same to every database.
_Json = JSON(none_as_null=True)

metadata = MetaData()
_leased = text("worker IS NOT NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Column("deleted", UtcDateTime),
    Column("request", _Json, nullable=False),
    Column("notices", _Json, nullable=False),
    Column("handle", _Json),
    Column("result", _Json),
    Column("error", _Json),
    Column("receipt", _Json),
    Column("images", _Json, nullable=False),
    Column("favourite", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    # What `search` looks in, folded here because LIKE folds differently in every database.
    Column("search_text", Text, nullable=False),
    Column("cost_usd", Float, nullable=False),
    # Only where several processes share the table: see `leases`.
    Column("worker", String(32)),
    Column("lease_until", UtcDateTime),
    Index("jobs_by_owner", "owner", "id"),
    Index("jobs_by_state", "state"),
    Index("jobs_by_worker", "worker", postgresql_where=_leased, sqlite_where=_leased),
)

# What a job took of the owner's. No part of `jobs`: it outlives a job that is purged.
spending = Table(
    "spending",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("images", Integer, nullable=False),
    # Millionths of a dollar: whole numbers add up exactly in every database.
    Column("micro_usd", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Index("spending_by_owner", "owner", "created"),
    Index("spending_by_time", "created"),
)

# One row, which whoever reserves locks: so reservations come one after the other.
spending_switch = Table(
    "spending_switch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("stopped", Boolean, nullable=False),
)
