"""Jobs of several processes in one database: each has one worker, and no step of another counts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text

from generation.errors import (
    DatabaseAddressWrong,
    DatabaseBusy,
    DatabaseDriverMissing,
    DatabaseUnreachable,
    KeyMissing,
    KeyRejected,
    OutcomeUnknown,
    StorageError,
)
from history import database, leases
from history.database import url_of
from history.leases import Leases
from history.records import IllegalTransition, Job, LeaseLost, State
from history.schema import jobs, metadata
from history.store import History
from tests.standins.postgres import PostgresServer
from tests.unit.test_history_steps import (
    COMPLETED,
    HANDLE,
    PICTURE,
    RECEIPT,
    REQUEST,
    RESULT,
    bring_to,
)
from tests.unit.test_history_steps import SUBMITTED as TO_SUBMITTED

SHORT = 0.2  # seconds
Opener = Callable[..., History]


@pytest.fixture
def open_history(data_folder: Path, server_database: str) -> Iterator[Opener]:
    """Each call is one more process on the database and the folder."""
    opened: list[History] = []

    def open_one(seconds: float = leases.SECONDS) -> History:
        opened.append(History.open(data_folder, server_database, lease_seconds=seconds))
        return opened[-1]

    yield open_one
    for history in opened:
        history.close()


def of(history: History) -> Leases:
    assert history.leases is not None
    return history.leases


def lost(*histories: History) -> tuple[History, History]:
    """After this the first one's jobs are there to be taken."""
    of(histories[0]).let_go()
    return histories[0], histories[1]


def take(history: History) -> list[str]:
    return [job.id for job in of(history).take_over(["hosted"])]


# -- who has a job -------------------------------------------------------------


def test_a_job_in_progress_is_left_to_its_worker(open_history: Opener) -> None:
    mine, other = open_history(), open_history()
    job_id = bring_to(mine, *TO_SUBMITTED)
    assert take(other) == []
    assert of(other).claim(job_id) is None
    with pytest.raises(LeaseLost):
        other.advance(job_id, State.COMPLETED, result=RESULT)
    assert mine.advance(job_id, State.COMPLETED, result=RESULT).state is State.COMPLETED


def test_a_lease_that_ran_out_is_taken_and_its_worker_is_shut_out(open_history: Opener) -> None:
    slow, other = open_history(SHORT), open_history()
    ids = [bring_to(slow), bring_to(slow, *TO_SUBMITTED), bring_to(slow, *COMPLETED)]
    assert take(other) == []
    time.sleep(SHORT + 0.1)
    assert take(other) == ids
    steps: list[Callable[[], object]] = [
        lambda: slow.advance(ids[0], State.SUBMITTING),
        lambda: slow.advance(ids[1], State.COMPLETED, result=RESULT),
        lambda: slow.advance(ids[1], State.CANCELLED),
        lambda: slow.note(ids[1], KeyMissing(backend="hosted", reason="no key")),
        lambda: slow.rewind(ids[0]),
        lambda: slow.store(ids[2], [PICTURE], RECEIPT),
    ]
    for step in steps:
        with pytest.raises(LeaseLost):
            step()
    assert [other.get(i, "me").state for i in ids] == ["INTENT", "SUBMITTED", "COMPLETED"]
    assert other.store(ids[2], [PICTURE], RECEIPT).state is State.STORED


def test_a_renewed_lease_does_not_run_out(open_history: Opener) -> None:
    steady, other = open_history(1.0), open_history()
    kept, left = bring_to(steady), bring_to(steady)
    for _ in range(3):
        time.sleep(0.4)
        of(steady).renew([kept])
    assert take(other) == [left]
    of(steady).renew([left])  # which it has no longer
    assert take(steady) == [] and steady.advance(kept, State.SUBMITTING)


def test_every_step_is_a_renewal(open_history: Opener) -> None:
    steady, other = open_history(1.0), open_history()
    job_id = bring_to(steady)
    for state in COMPLETED:
        time.sleep(0.4)
        needed: dict[State, dict[str, Any]] = {
            State.SUBMITTED: {"handle": HANDLE},
            State.COMPLETED: {"result": RESULT},
        }
        steady.advance(job_id, state, **needed.get(state, {}))
    assert take(other) == []


def test_of_many_takers_each_job_has_one(open_history: Opener) -> None:
    gone = open_history()
    ids = {bring_to(gone, *TO_SUBMITTED) for _ in range(30)}
    of(gone).let_go()
    takers = [open_history() for _ in range(6)]
    start = threading.Barrier(len(takers))

    def all_of_them(taker: History) -> list[str]:
        start.wait()
        return take(taker) + take(taker)

    with ThreadPoolExecutor(len(takers)) as pool:
        taken = [job_id for some in pool.map(all_of_them, takers) for job_id in some]
    assert len(taken) == len(set(taken)) and set(taken) == ids


def test_a_taker_leaves_what_it_cannot_do_and_takes_some_at_a_time(
    open_history: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BATCH", 2)
    gone, other = open_history(), open_history()
    ids = [bring_to(gone) for _ in range(3)]
    lost(gone, other)
    assert of(other).take_over(["local"]) == []
    assert take(other) == ids[:2] and take(other) == ids[2:]


@pytest.mark.parametrize("state", [State.UNKNOWN, State.FAILED, State.CANCELLED, State.STORED])
def test_a_job_that_has_come_to_rest_is_nobodys(open_history: Opener, state: State) -> None:
    one, other = open_history(), open_history()
    if state is State.STORED:
        job_id = bring_to(one, *COMPLETED)
        one.store(job_id, [PICTURE], RECEIPT)
    else:
        job_id = bring_to(one, State.SUBMITTING)
        one.advance(job_id, state, error=OutcomeUnknown(reason="reset"))
    lost(one, other)
    assert take(other) == [] and of(other).claim(job_id) is None
    assert worker_of(one, job_id) is None


def worker_of(history: History, job_id: str) -> str | None:
    with history._engine.connect() as connection:
        return connection.execute(select(jobs.c.worker).where(jobs.c.id == job_id)).scalar()


def test_a_job_that_waits_is_for_whoever_its_visitor_asks(open_history: Opener) -> None:
    one, other = open_history(), open_history()
    job_id = bring_to(one, *TO_SUBMITTED)
    one.note(job_id, KeyMissing(backend="hosted", reason="no key"))
    assert take(other) == []  # by itself nobody could go on
    assert [job.id for job in other.waiting("me")] == [job_id]
    claimed = of(other).claim(job_id)
    assert claimed is not None and claimed.error is None
    assert of(one).claim(job_id) is None
    with pytest.raises(LeaseLost):
        one.advance(job_id, State.COMPLETED, result=RESULT)
    assert other.waiting("me") == []


# -- what a worker that lost its job still knows --------------------------------


def unknown_elsewhere(open_history: Opener) -> tuple[History, History, str]:
    """Taken over between its post and the answer."""
    paused, other = open_history(), open_history()
    job_id = bring_to(paused, State.SUBMITTING)
    lost(paused, other)
    assert take(other) == [job_id]
    other.advance(job_id, State.UNKNOWN, error=OutcomeUnknown(reason="lost"))
    return paused, other, job_id


def test_the_answer_to_a_post_is_kept_whoever_gets_it(open_history: Opener) -> None:
    paused, other, job_id = unknown_elsewhere(open_history)
    found = paused.advance(job_id, State.SUBMITTED, handle=HANDLE)
    assert (found.state, found.handle, found.error) == (State.SUBMITTED, HANDLE, None)
    assert of(other).claim(job_id) is None
    assert paused.advance(job_id, State.COMPLETED, result=RESULT)


def test_a_refusal_resolves_an_unknown_outcome_too(open_history: Opener) -> None:
    paused, other, job_id = unknown_elsewhere(open_history)
    paused.advance(job_id, State.FAILED, error=KeyRejected(status=401, reason=""))
    assert other.get(job_id, "me").state is State.FAILED


def test_an_unknown_outcome_is_put_aside_by_any_process(open_history: Opener) -> None:
    paused, other, job_id = unknown_elsewhere(open_history)
    other.advance(job_id, State.CANCELLED)
    with pytest.raises(LeaseLost):
        paused.advance(job_id, State.SUBMITTED, handle=HANDLE)


def test_a_commit_whose_answer_was_lost_is_found_again(open_history: Opener) -> None:
    one, other = open_history(), open_history()
    job_id = bring_to(one, *TO_SUBMITTED)
    with pytest.raises(IllegalTransition):
        one.advance(job_id, State.SUBMITTED, handle=HANDLE)
    assert one.reached(job_id, State.SUBMITTED) is not None
    assert one.reached(job_id, State.COMPLETED) is None
    assert other.reached(job_id, State.SUBMITTED) is None


def test_files_of_two_workers_never_meet(open_history: Opener, data_folder: Path) -> None:
    """A paused worker that goes on writes its own file, and not the one that is stored."""
    paused, other = open_history(), open_history()
    job_id = bring_to(paused, *COMPLETED)
    lost(paused, other)
    take(other)
    stored = other.store(job_id, [PICTURE], RECEIPT)
    before = (data_folder / stored.images[0].file).read_bytes()
    paused._images.write([(f"images/x/{job_id}-0{paused._claims.mark}.png", b"half")])
    assert paused.store(job_id, [PICTURE], RECEIPT) == stored
    assert (data_folder / stored.images[0].file).read_bytes() == before
    assert paused._claims.mark != other._claims.mark != ""


# -- looking -------------------------------------------------------------------


def test_a_look_finds_wishes_and_other_peoples_work(open_history: Opener) -> None:
    one, other = open_history(), open_history()
    job_id = bring_to(one, *TO_SUBMITTED)
    assert of(one).look(["me"], [job_id]).elsewhere == {}
    seen = of(other).look(["me"], []).elsewhere
    assert list(seen) == [job_id] and of(other).look([], [job_id]).elsewhere == seen
    assert of(other).look(["you"], ["0" * 38]).elsewhere == {}
    other.request_cancel(job_id)
    assert of(one).look([], []).cancelled == {job_id}
    assert of(other).look(["me"], []).cancelled == frozenset()
    assert of(other).look(["me"], []).elsewhere[job_id] > seen[job_id]
    one.advance(job_id, State.CANCELLED)
    assert of(other).look(["me"], [job_id]).elsewhere == {}
    assert [job.state for job in other.known([job_id])] == [State.CANCELLED]


# -- ids -----------------------------------------------------------------------


def test_ids_of_processes_with_equal_clocks_differ(
    open_history: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_history(), open_history()
    monkeypatch.setattr("time.time_ns", lambda: 1_900_000_000_000_000_000)
    ids = [
        history.create("me", "hosted", REQUEST).id for _ in range(20) for history in (one, other)
    ]
    assert len({job_id[:14] for job_id in ids}) < len(set(ids)) == 40


def test_pages_are_whole_where_clocks_differ(
    open_history: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow clock's jobs stand further down, and on exactly one page."""
    one, slow = open_history(), open_history()
    for _ in range(9):
        monkeypatch.setattr("time.time_ns", lambda: 1_900_000_000_000_000_000)
        one.create("me", "hosted", REQUEST)
        monkeypatch.setattr("time.time_ns", lambda: 1_899_000_000_000_000_000)
        slow.create("me", "hosted", REQUEST)
    seen: list[str] = []
    while page := one.search("me", limit=4, before=seen[-1] if seen else None):
        seen += [job.id for job in page]
    assert len(seen) == len(set(seen)) == 18 and seen == sorted(seen, reverse=True)


# -- the server ----------------------------------------------------------------


def test_what_an_earlier_version_left_on_a_server_is_taken_over(
    postgres: PostgresServer, data_folder: Path
) -> None:
    address = postgres.new_database()
    with History.open(data_folder, address) as history:
        job: Job = history.create("me", "hosted", REQUEST)
        with history._engine.begin() as connection:  # back to what 0.1.0 had
            connection.execute(text("DROP TABLE spending, spending_switch"))
            connection.execute(text("DROP INDEX jobs_by_worker"))
            connection.execute(text("ALTER TABLE jobs DROP worker, DROP lease_until"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with History.open(data_folder, address) as history:
        assert take(history) == [job.id]
    postgres.drop(address)


def test_the_migrations_lead_to_the_schema_on_a_server(open_history: Opener) -> None:
    with open_history()._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_processes_that_start_together_migrate_once(
    postgres: PostgresServer, data_folder: Path
) -> None:
    address = postgres.new_database()
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: History.open(data_folder, address), range(4)))
    for history in opened:
        history.create("me", "hosted", REQUEST)
        history.close()
    postgres.drop(address)


def test_a_row_that_is_held_is_busy_within_the_bound(
    data_folder: Path, server_database: str
) -> None:
    with History.open(data_folder, server_database, busy_timeout=0.2) as history:
        job_id = bring_to(history)
        with history._engine.begin() as other:
            other.execute(jobs.update().where(jobs.c.id == job_id).values(favourite=True))
            with pytest.raises(DatabaseBusy):
                history.advance(job_id, State.SUBMITTING)
        assert history.advance(job_id, State.SUBMITTING)


def test_a_paused_process_holds_no_row_for_good(
    data_folder: Path, server_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_IDLE_TIMEOUT", 0.3)
    with History.open(data_folder, server_database) as history:
        job_id = bring_to(history)
        paused = history._engine.connect()
        paused.execute(jobs.update().where(jobs.c.id == job_id).values(favourite=True))
        assert history.advance(job_id, State.SUBMITTING).state is State.SUBMITTING
        with pytest.raises(DatabaseUnreachable), database.storage_faults():
            paused.commit()
        paused.invalidate()
        paused.close()


def test_a_restarted_server_is_said_and_found_again(
    postgres: PostgresServer, open_history: Opener
) -> None:
    history = open_history()
    job_id = bring_to(history)
    with history._engine.connect() as connection:
        connection.execute(select(1))
        postgres.stop()
        try:
            with pytest.raises(DatabaseUnreachable), database.storage_faults():
                connection.execute(insert(jobs), {"id": "x"})
            for call in (lambda: history.create("me", "hosted", REQUEST), history.unfinished):
                with pytest.raises(StorageError):
                    call()
        finally:
            postgres.start()
    assert history.advance(job_id, State.SUBMITTING).state is State.SUBMITTING


def test_several_share_a_folder(open_history: Opener, data_folder: Path) -> None:
    open_history(), open_history()
    with History.open(data_folder), pytest.raises(StorageError):
        History.open(data_folder)  # while a file is for one alone, whatever else is open


# -- addresses -----------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_address_needs_no_driver_in_it(tmp_path: Path, scheme: str) -> None:
    url = url_of(tmp_path, f"{scheme}://name:secret@db.example:6432/playground?sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.password, dict(url.query)) == (
        "db.example", 6432, "secret", {"sslmode": "require"},
    )  # fmt: skip


@pytest.mark.parametrize("address", ["nonsense://u:secret@h/x", "mysql://u:secret@h/x", "h/x"])
def test_another_kind_of_database_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises((DatabaseAddressWrong, DatabaseDriverMissing)) as caught:
        url_of(tmp_path, address)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseDriverMissing) as caught:
        url_of(tmp_path, "postgresql://127.0.0.1/x")
    assert "psycopg" in caught.value.cause
    assert "pip install -r requirements-postgres.txt" in caught.value.remedy
