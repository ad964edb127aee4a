"""What the owner of a page is told of everybody's jobs, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from generation.allowance import Charge, Limits
from generation.errors import DatabaseUnreachable, JobFailed, OutcomeUnknown, StorageError
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile, make_receipt
from history.records import Job, State
from history.store import History
from tests.faults.puppet import PICTURE
from tests.standins.postgres import PostgresServer

PROMPT = "a fox that nobody else knows"
REQUEST = GenerationRequest(prompt=PROMPT)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def failed(history: History, reason: str, owner: str = "me") -> Job:
    job = history.create(owner, "hosted", REQUEST)
    error = JobFailed(reason=reason, billing="not charged")
    return history.advance(job.id, State.FAILED, error=error)


def stored(history: History, backend: str, *, billed: bool) -> Job:
    job = history.create("me", backend, REQUEST)
    history.advance(job.id, State.SUBMITTING)
    result = GenerationResult(images=(ImageFile(url="x"),), seed=7, billable_units=2)
    history.advance(job.id, State.COMPLETED, result=result)
    receipt = make_receipt(REQUEST, result, [PICTURE.info], backend=backend, billed=billed)
    return history.store(job.id, [PICTURE], receipt)


def test_jobs_are_counted_by_backend_and_state(any_history: History) -> None:
    overview = any_history.overview
    assert overview.open_by_state() == overview.ended_since(LONG_AGO) == {}
    for owner in ("me", "you"):
        any_history.create(owner, "hosted", REQUEST)
    stored(any_history, "demo", billed=False)
    failed(any_history, "no reason")
    assert overview.open_by_state() == {("hosted", State.INTENT): 2}
    assert overview.ended_since(LONG_AGO) == {
        ("demo", State.STORED): 1,
        ("hosted", State.FAILED): 1,
    }
    assert overview.ended_since(datetime.now(UTC) + timedelta(hours=1)) == {}


def test_open_jobs_are_the_oldest_first(any_history: History) -> None:
    jobs = [any_history.create("me", "demo", REQUEST) for _ in range(3)]
    found = any_history.overview.open_jobs(limit=2)
    assert [job.id for job in found] == [job.id for job in jobs[:2]]
    assert (found[0].backend, found[0].state) == ("demo", State.INTENT)
    assert found[0].created == jobs[0].created


def test_failures_are_the_newest_first_and_quote_no_prompt(any_history: History) -> None:
    failed(any_history, "forgotten")
    failed(any_history, f"refused: {PROMPT}!", owner="you")
    lost = any_history.create("me", "hosted", REQUEST)
    any_history.advance(lost.id, State.SUBMITTING)
    any_history.advance(lost.id, State.UNKNOWN, error=OutcomeUnknown(reason="cut"))
    unknown, refused = any_history.overview.failures(limit=2)
    assert (type(unknown.error), unknown.state) == (OutcomeUnknown, State.UNKNOWN)
    assert refused.error.facts == {"reason": "refused: …!", "billing": "not charged"}


def test_receipts_add_up(any_history: History) -> None:
    assert any_history.overview.spent_since(LONG_AGO) == 0
    stored(any_history, "hosted", billed=True)
    stored(any_history, "demo", billed=False)
    assert any_history.overview.spent_since(LONG_AGO) == pytest.approx(2 * 0.0085)
    assert any_history.overview.spent_since(datetime.now(UTC) + timedelta(hours=1)) == 0


def test_who_has_jobs(data_folder: Path, server_database: str) -> None:
    with History.open(data_folder, server_database) as one:
        with History.open(data_folder, server_database) as other:
            for history, count in ((one, 2), (other, 1)):
                for _ in range(count):
                    history.create("me", "demo", REQUEST)
            failed(other, "over: nobody has it")
            workers = one.overview.workers()
            assert sorted(workers.values()) == [1, 2]
            assert {job.worker for job in one.overview.open_jobs(9)} == set(workers)


def test_alone_nobody_is_named(history: History) -> None:
    history.create("me", "demo", REQUEST)
    assert history.overview.workers() == {}


def test_the_ledger_adds_up_days(history: History) -> None:
    """At one minute past midnight UTC, yesterday is the day before."""
    charge = Charge(1, Decimal("0.25"), Limits(), Decimal(9))
    job = history.create("me", "hosted", REQUEST, charge=charge)
    midnight = datetime.combine(job.created.date(), datetime.min.time(), UTC)
    taken = history.spending.taken
    for days_later, days, usd in [(0, 1, "0.25"), (1, 1, "0"), (1, 2, "0.25"), (7, 7, "0")]:
        now = midnight + timedelta(days=days_later, minutes=1)
        assert taken(days, now) == Decimal(usd), (days_later, days)


def test_a_file_that_is_gone_is_no_database(history: History, data_folder: Path) -> None:
    history.overview.check()
    (data_folder / "history.sqlite3").unlink()
    with pytest.raises(StorageError):
        history.overview.check()


def test_a_server_that_is_gone_is_no_database(
    data_folder: Path, postgres: PostgresServer, server_database: str
) -> None:
    with History.open(data_folder, server_database) as history:
        history.overview.check()
        postgres.stop()
        try:
            with pytest.raises(DatabaseUnreachable):
                history.overview.check()
        finally:
            postgres.start()
        history.overview.check()
