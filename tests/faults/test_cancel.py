"""Rows 46 to 50: stopping a job. Asked for once, and what was made all the same is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backends.base import CancelOutcome
from generation.errors import NoImages
from generation.events import Queued, Running
from history.records import State
from history.store import History
from jobs import JobView, flight
from tests.faults.bench import OWNER, Bench, assert_says
from tests.standins import fal_faults as faults
from tests.standins.fault_table import Fault

OK = faults.answer("cancel", 200, {"status": "OK"}, handled=True)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued job ends long before; for a running one the visitor isn't kept waiting."""
    monkeypatch.setattr(flight, "GRACE_QUEUED", 30.0)
    monkeypatch.setattr(flight, "GRACE_RUNNING", 0.3)


@contextmanager
def in_queue(bench: Bench) -> Iterator[str]:
    """A job that waits in the queue, where time stands still."""
    bench.fal.hold()
    job_id = bench.submitted()
    bench.until(job_id, lambda view: isinstance(view.live, Queued))
    yield job_id
    bench.fal.release()


@contextmanager
def running(bench: Bench) -> Iterator[str]:
    """A job that is being made, and will be for as long as the test wants."""
    with in_queue(bench) as job_id:
        bench.fal.advance(0.06)
        bench.until(job_id, lambda view: isinstance(view.live, Running))
        yield job_id


def assert_cancelled(bench: Bench, job_id: str, cancels: int = 1) -> JobView:
    view = bench.settled(job_id)
    assert view.job.state is State.CANCELLED
    assert (view.problem, view.live, view.cancelling, view.unconfirmed) == (
        None,
        None,
        False,
        False,
    )
    assert bench.job(job_id).state is State.CANCELLED and bench.job(job_id).cancel_requested
    assert len(bench.seen.posts()) == 1 and len(bench.seen.cancels()) == cancels
    assert bench.files() == []
    return view


def assert_kept(bench: Bench, job_id: str, cancels: int = 1) -> None:
    view = bench.in_state(job_id, State.STORED)
    assert (view.problem, view.cancelling) == (None, False)
    assert len(bench.seen.posts()) == len(bench.files()) == 1
    assert len(bench.seen.cancels()) == cancels


# -- 46 ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, OK], ids=["202", "200 OK"])
def test_row_46_cancelled_in_the_queue_is_cancelled(bench: Bench, answer: Fault | None) -> None:
    if answer:
        bench.fal.inject(answer)
    with in_queue(bench) as job_id:
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
    assert_cancelled(bench, job_id)
    assert bench.fal.jobs()[-1]["cancelled"]
    bench.restart()
    assert bench.job(job_id).state is State.CANCELLED
    assert len(bench.seen.cancels()) == 1


def test_row_46_the_wish_shows_before_the_endpoint_answers(bench: Bench) -> None:
    bench.fal.inject(faults.slow("cancel", 1.0))
    with in_queue(bench) as job_id, ThreadPoolExecutor(1) as other:
        asked = other.submit(bench.runner.cancel, job_id, OWNER)
        bench.until(job_id, lambda view: view.cancelling)
        assert bench.job(job_id).cancel_requested  # kept before the endpoint is asked
        asked.result(30)
    assert_cancelled(bench, job_id)


def test_row_46_cancelled_from_elsewhere_is_cancelled_too(bench: Bench) -> None:
    """On fal's dashboard, say: the status tells, and no request of ours is needed."""
    bench.fal.inject(
        faults.job_fails(499, error="Request was cancelled", error_type="client_cancelled")
    )
    view = bench.run()
    assert view.job.state is State.CANCELLED and view.problem is None
    assert bench.seen.cancels() == []


def test_row_46_cancelled_where_only_the_result_tells(bench: Bench) -> None:
    body = {"detail": "Request was cancelled", "error_type": "client_cancelled"}
    bench.fal.inject(faults.job_fails(499, body, error=None, error_type=None))
    view = bench.run()
    assert view.job.state is State.CANCELLED
    assert len(bench.seen.exchanges("result")) == 1


def test_row_46_the_wish_is_repeated_after_a_restart(bench: Bench) -> None:
    """The process ended between the click and the request."""
    with in_queue(bench) as job_id:
        bench.close()
        with History.open(bench.folder) as history:
            history.request_cancel(job_id)
        bench.open()
        assert_cancelled(bench, job_id)


def test_row_46_a_running_job_is_cancelled_when_nothing_more_comes(bench: Bench) -> None:
    bench.fal.inject(faults.never_completes())
    with running(bench) as job_id:
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
        assert_cancelled(bench, job_id)


# -- 47 ------------------------------------------------------------------------


def test_row_47_already_completed_shows_the_result(bench: Bench) -> None:
    """The endpoint has finished, and we don't know it yet."""
    with in_queue(bench) as job_id:
        bench.fal.inject(faults.html("status", 502, times=None))
        bench.polls(2)
        bench.fal.finish(bench.request_id(job_id))
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.ALREADY_COMPLETED
        assert not bench.view(job_id).cancelling
        bench.fal.clear_faults()
        assert_kept(bench, job_id)


def test_row_47_already_completed_keeps_an_honest_failure(bench: Bench) -> None:
    """It isn't called cancelled when it was made, and billed, without images."""
    bench.fal.inject(faults.no_images())
    with in_queue(bench) as job_id:
        bench.fal.inject(faults.html("status", 502, times=None))
        bench.polls(2)
        bench.fal.finish(bench.request_id(job_id))
        bench.runner.cancel(job_id, OWNER)
        bench.fal.clear_faults()
        view = bench.settled(job_id)
    assert view.job.state is State.FAILED
    assert_says(view.problem, NoImages)


def test_row_47_a_job_that_has_ended_here_isnt_asked_about(bench: Bench) -> None:
    job_id = bench.run().job.id
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.ALREADY_COMPLETED
    assert_kept(bench, job_id, cancels=0)


def test_row_47_while_its_image_is_on_the_way_home_the_result_is_kept(bench: Bench) -> None:
    bench.fal.inject(faults.slow("media", 1.0))
    job_id = bench.submit()
    bench.in_state(job_id, State.COMPLETED)
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.ALREADY_COMPLETED
    assert_kept(bench, job_id)


# -- 48 ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, OK], ids=["202", "200 OK"])
def test_row_48_a_cancel_that_races_completion_keeps_the_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Fault | None
) -> None:
    """Running work is only signalled: it may be finished, and billed, all the same."""
    monkeypatch.setattr(flight, "GRACE_RUNNING", 30.0)
    if answer:
        bench.fal.inject(answer)
    with running(bench) as job_id, ThreadPoolExecutor(1) as other:
        asked = other.submit(bench.runner.cancel, job_id, OWNER)
        bench.seen.wait_until(
            lambda ledger: bool(ledger.cancels() and ledger.cancels()[0].answered)
        )
        bench.fal.finish(bench.request_id(job_id))
        assert asked.result(30) is CancelOutcome.REQUESTED
    assert_kept(bench, job_id)


def test_row_48_a_result_in_hand_is_kept_though_the_grace_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is slow to take COMPLETED: nothing may interrupt that."""
    advance = bench.history.advance

    def slow(job_id: str, state: State, **values: object) -> object:
        if state is State.COMPLETED:
            time.sleep(1.5)
        return advance(job_id, state, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.history, "advance", slow)
    with running(bench) as job_id:
        bench.fal.inject(faults.slow("cancel", 0.2))
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(bench.runner.cancel, job_id, OWNER)
            bench.seen.wait_until(lambda ledger: len(ledger.cancels()) == 1)
            bench.fal.finish(bench.request_id(job_id))
            asked.result(30)
    assert_kept(bench, job_id)


# -- 49 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.answer("cancel", 404, {"status": "NOT_FOUND"}),
        faults.answer("cancel", 500, {"detail": "Oops"}),
        faults.rejected_key("cancel"),
        faults.reset_before_reading("cancel", times=None),
    ],
    ids=["404", "500", "401", "resets"],
)
def test_row_49_cancel_without_a_clear_answer_is_unconfirmed(
    new_bench: Callable[..., Bench], fault: Fault
) -> None:
    """Said so, the job goes on, and it can be asked again."""
    bench = new_bench(answer=1.0)
    bench.fal.inject(fault)
    with in_queue(bench) as job_id:
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.UNCONFIRMED
        view = bench.view(job_id)
        assert view.unconfirmed and not view.cancelling and not view.settled
        assert view.job.state is State.SUBMITTED
        bench.fal.clear_faults()
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
        assert_cancelled(bench, job_id, cancels=len(bench.seen.cancels()))
    assert [e.accepted for e in bench.seen.cancels()].count(True) == 1


def test_row_49_a_cancel_timeout_is_unconfirmed_until_the_status_tells(
    new_bench: Callable[..., Bench],
) -> None:
    """It was carried out, and only its answer is missing."""
    bench = new_bench(answer=1.0)
    bench.fal.inject(faults.slow("cancel", 60))
    with in_queue(bench) as job_id:
        started = time.monotonic()
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.UNCONFIRMED
        assert time.monotonic() - started < 40
        assert_cancelled(bench, job_id)


def test_row_49_an_unconfirmed_cancel_doesnt_lose_the_result(bench: Bench) -> None:
    bench.fal.inject(faults.answer("cancel", 404, {"status": "NOT_FOUND"}))
    with in_queue(bench) as job_id:
        assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.UNCONFIRMED
    assert_kept(bench, job_id)
    assert not bench.view(job_id).job.error


def test_row_49_a_cancel_whose_answer_is_lost_is_asked_for_again(bench: Bench) -> None:
    """It took effect the first time, so the second is told ALREADY_COMPLETED: cancelled still."""
    bench.fal.inject(faults.reset_after_accept("cancel"))
    with in_queue(bench) as job_id:
        bench.runner.cancel(job_id, OWNER)
        assert_cancelled(bench, job_id, cancels=2)


# -- 50 ------------------------------------------------------------------------


def test_row_50_a_double_click_is_one_request(bench: Bench) -> None:
    bench.fal.inject(faults.slow("cancel", 0.5))
    with in_queue(bench) as job_id, ThreadPoolExecutor(5) as clicks:
        asked = [clicks.submit(bench.runner.cancel, job_id, OWNER) for _ in range(5)]
        assert {click.result(30) for click in asked} == {CancelOutcome.REQUESTED}
    assert_cancelled(bench, job_id)


def test_row_50_clicks_one_after_the_other_are_one_request(bench: Bench) -> None:
    bench.fal.inject(faults.never_completes())
    with running(bench) as job_id:
        outcomes = [bench.runner.cancel(job_id, OWNER) for _ in range(3)]
        assert outcomes[0] is CancelOutcome.REQUESTED
        assert set(outcomes[1:]) == {CancelOutcome.ALREADY_COMPLETED}
        assert_cancelled(bench, job_id)


# -- before the endpoint has the job -------------------------------------------


def test_a_cancel_while_the_post_is_on_its_way_is_sent_once_it_is_answered(bench: Bench) -> None:
    bench.fal.hold()
    bench.fal.inject(faults.slow("submit", 1.0))
    job_id = bench.submit()
    bench.seen.wait_until(lambda ledger: len(ledger.posts()) == 1)
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
    assert bench.seen.cancels() == []
    assert_cancelled(bench, job_id)


@pytest.mark.parametrize("attempt", range(10))
def test_a_cancel_right_after_the_submit_is_never_overlooked(bench: Bench, attempt: int) -> None:
    """Whatever the runner's thread is at: at most one post, and then one request to cancel."""
    bench.fal.hold()
    job_id = bench.submit()
    time.sleep(attempt * 0.002)
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.REQUESTED
    view = bench.settled(job_id)
    assert view.job.state is State.CANCELLED
    assert len(bench.seen.cancels()) == len(bench.seen.paid_jobs()) <= 1


def test_a_job_with_an_unknown_outcome_cant_be_cancelled(bench: Bench) -> None:
    bench.fal.inject(faults.reset_after_accept("submit"))
    job_id = bench.run().job.id
    assert bench.runner.cancel(job_id, OWNER) is CancelOutcome.UNCONFIRMED
    assert bench.job(job_id).state is State.UNKNOWN
