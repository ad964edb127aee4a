"""Opening the database: checked, set aside if it is damaged, migrated, its faults translated."""

from __future__ import annotations

import errno
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from generation.errors import (
    DatabaseAddressWrong,
    DatabaseBusy,
    DatabaseDriverMissing,
    DatabaseNewer,
    DatabaseUnreachable,
    DiskFull,
    StorageError,
)
from history.schema import REVISION

FILE_NAME: Final = "history.sqlite3"
BUSY_TIMEOUT: Final = 5.0  # seconds; then the visitor is told, and nothing is submitted

_MIGRATIONS = Path(__file__).parent / "migrations"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAULTS: Final[dict[object, type[StorageError]]] = {
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
    sqlite3.SQLITE_FULL: DiskFull,
    "53100": DiskFull,  # PostgreSQL's disk_full
    "55P03": DatabaseBusy,  # lock_not_available
    "40P01": DatabaseBusy,  # deadlock_detected
}
_POSTGRESQL = "postgresql+psycopg"
_MIGRATING: Final = 0x7A696D67  # the name of the lock that one migration holds
# libpq's: a server that vanished without a word is given up within half a minute.
_PATIENCE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_IDLE_TIMEOUT: Final = 10.0  # seconds that a paused process may keep others from a row
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storage_faults() -> Iterator[None]:
    """Translate what disk and database raise.

    Raises:
        DiskFull, DatabaseBusy: by the driver's own codes.
        StorageError: any other fault of the disk or of the database's operation;
            mistakes of ours (IntegrityError, ProgrammingError) pass as they are.
    """
    try:
        yield
    except PoolTimeout as exc:  # every pooled connection is taken
        raise DatabaseBusy from exc
    except DBAPIError as exc:
        if (fault := _fault(exc)) is None:
            raise
        raise fault from exc
    except OSError as exc:
        raise (DiskFull if exc.errno in _FULL else StorageError) from exc


def _fault(exc: DBAPIError) -> type[StorageError] | None:
    code = _sqlite_code(exc.orig)
    if code is None:
        return _server_fault(exc, getattr(exc.orig, "sqlstate", None))
    operational = isinstance(exc, OperationalError) or code in _DAMAGED
    return _FAULTS.get(code, StorageError if operational else None)


def _server_fault(exc: DBAPIError, state: str | None) -> type[StorageError] | None:
    """By SQLSTATE; without one, or with 08… and 57P…, nobody was there to answer."""
    if state in _FAULTS:
        return _FAULTS[state]
    operational = isinstance(exc, OperationalError)
    gone = operational and (state is None or state.startswith(("08", "57P")))
    if gone or exc.connection_invalidated:
        return DatabaseUnreachable
    return StorageError if operational else None


def _sqlite_code(exc: BaseException | None) -> int | None:
    """SQLite's primary result code; the extended ones carry more in their upper bytes."""
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def url_of(data_dir: Path, database_url: str | None) -> URL:
    """The address of the journal: one file in the data folder unless another is named.

    Raises:
        DatabaseAddressWrong: neither PostgreSQL's nor SQLite's.
        DatabaseDriverMissing: the package for it isn't installed.
    """
    if not database_url:
        return URL.create("sqlite", database=str(data_dir / FILE_NAME))
    try:
        url = _with_driver(make_url(database_url))
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as exc:  # whose text may hold the password
        raise DatabaseAddressWrong(reason="it isn't an address of SQLAlchemy's") from exc
    except ImportError as exc:
        raise DatabaseDriverMissing(package=exc.name or "psycopg") from exc
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise DatabaseAddressWrong(reason="only PostgreSQL and SQLite are known")
    return url


def _with_driver(url: URL) -> URL:
    """PostgreSQL's address as its own tools write it means the driver that we name."""
    own = url.drivername in ("postgresql", "postgres")
    return url.set(drivername=_POSTGRESQL) if own else url


def open_engine(url: URL, busy_timeout: float = BUSY_TIMEOUT) -> Engine:
    """An engine whose database is at the newest revision.

    Raises:
        StorageError: it can't be opened.
        DatabaseNewer: a newer playground wrote it.
    """
    # Parameters hold prompts: no error that is logged may show them.
    options: dict[str, Any] = {"pool_timeout": busy_timeout, "hide_parameters": True}
    if is_sqlite(url):
        options["connect_args"] = {"timeout": busy_timeout}
    else:
        options["pool_pre_ping"] = True  # a server may have been restarted meanwhile
        patience = _PATIENCE | {"connect_timeout": math.ceil(busy_timeout)}
        given = {name: value for name, value in patience.items() if name not in url.query}
        options["connect_args"] = given
    engine = create_engine(url, **options)
    prepare = _prepare_sqlite if is_sqlite(url) else partial(_prepare_server, busy_timeout)
    event.listen(engine, "connect", prepare)
    try:
        with storage_faults():
            migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file, which one process has for itself."""
    return url.get_backend_name() == "sqlite"


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # WAL: readers never wait for the writer. FULL: a commit survives a power cut, and what
    # is committed here has been paid for.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _prepare_server(busy_timeout: float, connection: Any, _record: object) -> None:
    """A row that another session holds is waited for as SQLite's file is, and never for good."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(busy_timeout * 1000)}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {int(_IDLE_TIMEOUT * 1000)}")
    connection.commit()


# -- migrations ----------------------------------------------------------------


def migrate(engine: Engine) -> None:
    """Bring the schema to `REVISION`, in one transaction."""
    with engine.connect() as connection:
        if _revision(connection) == REVISION:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            # The driver opens no transaction for DDL by itself: a kill would leave half a schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # processes may start together; the second finds nothing left to do
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
        _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # Imported here: 0.2 s of CPU that only the first start and an update need.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as exc:  # a revision that isn't ours: written by a newer playground
        raise DatabaseNewer from exc


# -- a damaged file ------------------------------------------------------------


def set_aside_if_damaged(url: URL, busy_timeout: float = BUSY_TIMEOUT) -> str | None:
    """Rename a SQLite file that can't be read; the sentence for the visitor, or None.

    Reads the whole file once. A file that is locked or not permitted isn't
    damaged, and stays where it is.
    """
    if not is_sqlite(url) or url.database in (None, "", ":memory:"):
        return None
    file = Path(str(url.database))
    if not file.exists() or not _is_damaged(file, busy_timeout):
        return None
    aside = file.with_name(f"{file.stem}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}{file.suffix}")
    # The logs go first: left behind, they would be replayed into the new, empty file.
    for suffix in ("-wal", "-journal", "-shm", ""):
        part = Path(f"{file}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return (
        f"The history database was damaged and is kept as {aside.name}; "
        "a new one was started, and the image files are untouched."
    )


def _is_damaged(file: Path, busy_timeout: float) -> bool:
    # Read-only: an ordinary connection to a damaged file deletes its log when it is closed.
    address = f"{file.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, busy_timeout, uri=True)) as connection:
            [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as exc:
        return _sqlite_code(exc) in _DAMAGED
    return bool(verdict != "ok")
