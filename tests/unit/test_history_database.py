"""Opening the database: locked, damaged, full, of another version, of another kind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import create_engine, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from generation.errors import (
    DatabaseBusy,
    DatabaseUnreachable,
    DataFolderInUse,
    DiskFull,
    NoImages,
    PlaygroundError,
    StorageError,
)
from generation.request import GenerationRequest
from history import database, journal
from history.database import storage_faults
from history.records import State
from history.schema import REVISION, jobs, metadata
from history.store import History

REQUEST = GenerationRequest(prompt="a fox")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def history(folder: Path) -> Iterator[History]:
    with History.open(folder, busy_timeout=0.2) as opened:
        yield opened


# -- one owner -----------------------------------------------------------------


def test_a_folder_has_one_playground(folder: Path) -> None:
    with History.open(folder):
        with pytest.raises(DataFolderInUse) as caught:
            History.open(folder)
        assert str(folder) in caught.value.cause
    History.open(folder).close()


def test_a_failed_start_lets_the_folder_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_engine: object) -> None:
        raise StorageError

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(database, "migrate", fail)
        History.open(folder)
    History.open(folder).close()


def test_the_lease_ends_with_its_process(folder: Path) -> None:
    child = os.fork()
    if child == 0:
        History.open(folder)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    History.open(folder).close()


def test_the_lease_holds_between_processes(folder: Path) -> None:
    with History.open(folder):
        child = os.fork()
        if child == 0:
            try:
                FileLock(folder / "playground.lock").acquire(blocking=False)
            except BaseException:
                os._exit(7)
            os._exit(0)
        assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7


# -- busy and full -------------------------------------------------------------


def test_a_locked_database_is_busy_within_its_bound(history: History, folder: Path) -> None:
    job = history.create("me", "demo", REQUEST)
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(DatabaseBusy):
            history.create("me", "demo", REQUEST)
        with pytest.raises(DatabaseBusy):
            history.advance(job.id, State.SUBMITTING)
        assert 0.3 < time.monotonic() - started < 3
        assert history.get(job.id, "me").state is State.INTENT  # reading goes on
        other.rollback()
    assert len(history.search("me")) == 1
    assert history.advance(job.id, State.SUBMITTING).state is State.SUBMITTING


def test_the_bound_is_five_seconds_by_default() -> None:
    assert database.BUSY_TIMEOUT == 5.0


def test_a_database_locked_at_the_start_is_busy_and_not_damaged(folder: Path) -> None:
    History.open(folder).close()
    (folder / database.FILE_NAME).unlink()
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy):
            History.open(folder, busy_timeout=0.1)
    with History.open(folder) as history:
        assert history.notice is None


def test_a_full_database_is_a_full_disk(history: History) -> None:
    with history._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(DiskFull):
        for _ in range(50):
            history.create("me", "demo", GenerationRequest(prompt="x" * 4000))


def test_commits_survive_a_power_cut(history: History) -> None:
    with history._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


class _ServerError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("kind", "cause", "told"),
    [
        (OperationalError, _ServerError("53100"), DiskFull),
        (OperationalError, _ServerError("55P03"), DatabaseBusy),
        (OperationalError, _ServerError("40P01"), DatabaseBusy),
        (OperationalError, _ServerError("57P01"), DatabaseUnreachable),
        (OperationalError, _ServerError("08006"), DatabaseUnreachable),
        (OperationalError, Exception("connection refused"), DatabaseUnreachable),
        (OperationalError, _ServerError("58030"), StorageError),
        (ProgrammingError, _ServerError("42601"), ProgrammingError),
    ],
)
def test_a_servers_faults_have_the_same_names(
    kind: type[DBAPIError], cause: Exception, told: type[Exception]
) -> None:
    with pytest.raises(told) as caught, storage_faults():
        raise kind("SELECT 1", {}, cause)
    assert type(caught.value) is told


# -- damaged -------------------------------------------------------------------


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "not a database":
        data[:] = b"<html>captive portal</html>" * 400
    elif how == "middle overwritten":
        data[5000:9000] = b"\xff" * 4000
    else:
        del data[-4096:]
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["not a database", "middle overwritten", "cut short"])
def test_a_damaged_database_is_set_aside_and_said(folder: Path, how: str) -> None:
    with History.open(folder) as history:
        for _ in range(30):
            history.create("me", "demo", GenerationRequest(prompt="x" * 900))
    file = folder / database.FILE_NAME
    damage(file, how)
    damaged = file.read_bytes()
    with History.open(folder) as history:
        [aside] = folder.glob("history.damaged-*.sqlite3")
        assert aside.read_bytes() == damaged
        assert history.notice is not None
        assert aside.name in history.notice
        assert history.search("me") == []
        history.create("me", "demo", REQUEST)
    with History.open(folder) as history:
        assert history.notice is None
        assert len(history.search("me")) == 1


def test_the_log_of_a_damaged_database_goes_with_it(folder: Path) -> None:
    """What a killed process committed last is in the log only; nobody's repair may miss it."""
    History.open(folder).close()
    if os.fork() == 0:
        History.open(folder).create("me", "demo", REQUEST)
        os.kill(os.getpid(), 9)
    os.wait()
    log = (folder / f"{database.FILE_NAME}-wal").read_bytes()
    damage(folder / database.FILE_NAME, "not a database")
    with History.open(folder) as history:
        history.create("me", "demo", REQUEST)
    [aside] = folder.glob("history.damaged-*-wal")
    assert aside.read_bytes() == log
    assert b"a fox" in log


def test_an_empty_file_is_a_new_database(folder: Path) -> None:
    folder.mkdir()
    (folder / database.FILE_NAME).touch()
    with History.open(folder) as history:
        assert history.notice is None


# -- migrations ----------------------------------------------------------------


def test_the_migrations_lead_to_the_schema(history: History) -> None:
    with history._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_a_history_of_the_first_version_is_brought_up_to_date(folder: Path) -> None:
    with History.open(folder) as history:
        job = history.create("me", "demo", REQUEST)
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as connection, connection:
        connection.execute("DROP TABLE spending")
        connection.execute("DROP TABLE spending_switch")
        connection.execute("DROP INDEX jobs_by_worker")
        connection.execute("ALTER TABLE jobs DROP COLUMN worker")
        connection.execute("ALTER TABLE jobs DROP COLUMN lease_until")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with History.open(folder) as history:
        assert history.unfinished() == [job]
        assert history.advance(job.id, State.SUBMITTING).state is State.SUBMITTING
        assert history.spending.today().jobs == 0 and not history.spending.stopped


def test_a_migration_that_fails_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFull):
        patch.setattr(op, "create_index", fail)
        History.open(folder)
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    with History.open(folder) as history:
        history.create("me", "demo", REQUEST)


def test_a_newer_playgrounds_database_is_left_alone(folder: Path) -> None:
    History.open(folder).close()
    with closing(sqlite3.connect(folder / database.FILE_NAME)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError):
        History.open(folder)
    assert list(folder.glob("*damaged*")) == []


def test_an_ordinary_start_imports_no_alembic(folder: Path) -> None:
    History.open(folder).close()
    script = (
        "import sys; from pathlib import Path; from history.store import History;"
        f"History.open(Path({str(folder)!r})).close();"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'alembic', 'mako'}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_folder_with_odd_letters_works(tmp_path: Path) -> None:
    with History.open(tmp_path / "50% off?#&.. é 狐") as history:
        history.create("me", "demo", REQUEST)


# -- another database ----------------------------------------------------------


def test_another_database_is_taken_by_its_address(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.sqlite3"
    with History.open(folder, f"sqlite:///{elsewhere}") as history:
        job = history.create("me", "demo", REQUEST)
    assert not (folder / database.FILE_NAME).exists()
    engine = create_engine(f"sqlite:///{elsewhere}")
    with engine.connect() as connection:
        assert connection.execute(select(jobs.c.id)).scalars().all() == [job.id]
    engine.dispose()


def test_an_unreachable_server_is_said_and_not_traced(folder: Path) -> None:
    with pytest.raises(StorageError):
        History.open(folder, f"sqlite:///{folder}/no/such/folder/x.sqlite3")


def test_every_statement_is_one_that_postgresql_knows() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    conditions = [
        journal.visible_to("me"),
        journal.matches("50% fox_"),
        journal.older_than("0"),
        journal.is_favourite(),
        journal.final(False),
        journal.has_handle(),
        journal.deleted_before(datetime.now(UTC)),
    ]
    statements = [
        insert(jobs),
        update(jobs).where(*conditions).values(handle=None).returning(*jobs.c),
        select(jobs).where(*conditions).order_by(jobs.c.id.desc()).limit(3),
        select(func.max(jobs.c.id)),
        delete(jobs).where(jobs.c.id.in_(["a", "b"])),
    ]
    for statement in statements:
        assert "jobs" in str(statement.compile(dialect=dialect))


def test_an_error_of_an_older_version_is_still_an_error(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = history.create("me", "demo", REQUEST)
    history.advance(job.id, State.FAILED, error=NoImages(extra=1))
    monkeypatch.setattr(NoImages, "message", "Needs {a_fact_of_today}.")
    error = history.get(job.id, "me").error
    assert type(error) is PlaygroundError
    assert error.facts == {"extra": 1}
