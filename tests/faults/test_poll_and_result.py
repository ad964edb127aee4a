"""Rows 21 to 38: following an accepted job to its result, or to an honest reason why not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
from pydantic import SecretStr

from generation.errors import (
    JobExpired,
    JobFailed,
    JobOverdue,
    KeyRevoked,
    NoImages,
    PlaygroundError,
    Refused,
)
from generation.events import Queued
from history.records import State
from jobs import JobView, flight
from tests.faults.bench import KEY, OWNER, Bench, assert_says
from tests.standins import fal_faults as faults
from tests.standins.fault_table import Fault

DAY = 86_400


def assert_unnoticed(bench: Bench, *strikes: Fault) -> JobView:
    """The job is stored, one post was sent, and no watcher ever saw a problem."""
    bench.fal.inject(*strikes)
    job_id = bench.submit()
    views = bench.watch(job_id).views()
    assert [view.problem for view in views if view.problem] == []
    assert views[-1].job.state is State.STORED
    assert bench.job(job_id).error is None
    assert len(bench.seen.posts()) == len(bench.files()) == 1
    return views[-1]


def assert_failed(bench: Bench, kind: type[PlaygroundError], *words: str) -> JobView:
    """The job ends with this error, here and in the journal, and isn't taken up again."""
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(view.problem, kind, *words)
    bench.restart()
    assert bench.job(view.job.id).state is State.FAILED
    assert_says(bench.job(view.job.id).error, kind, *words)
    assert len(bench.seen.posts()) == 1
    assert bench.files() == []
    return view


# -- polls ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.infrastructure_error("status", 500, "internal_error"),
        faults.infrastructure_error("status", 503, "runner_scheduling_failure"),
        faults.html("status", 502),
        faults.answer("status", 504, {"detail": "Timeout"}),
        faults.html("status", 200),
        faults.truncated_json("status"),
        faults.truncated_body("status"),
        faults.answer("status", 200, []),
        faults.reset_before_reading("status"),
        faults.reset_after_accept("status"),
    ],
    ids=[
        "500", "503", "502", "504", "html", "json", "body", "list", "reset", "reset after",
    ],
)  # fmt: skip
def test_row_21_one_bad_poll_goes_unnoticed(bench: Bench, fault: Fault) -> None:
    assert_unnoticed(bench, fault)


def test_row_22_resets_for_minutes_leave_the_job_waiting_and_it_recovers(
    new_bench: Callable[..., Bench],
) -> None:
    bench = new_bench(answer=0.3)  # cuts short what fal_client tries by itself
    bench.fal.hold()
    job_id = bench.submitted()
    bench.until(job_id, lambda view: isinstance(view.live, Queued))
    bench.fal.inject(faults.reset_before_reading("status", times=None))
    bench.polls(25)
    waiting = bench.view(job_id)
    assert waiting.problem is None and not waiting.settled
    assert waiting.job.state is State.SUBMITTED and isinstance(waiting.live, Queued)
    bench.fal.clear_faults()
    bench.fal.release()
    assert bench.settled(job_id).job.state is State.STORED
    assert len(bench.seen.posts()) == 1


def test_row_22_silence_instead_of_a_status_is_waited_out(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(answer=0.3)
    assert_unnoticed(bench, faults.slow("status", 60, times=3))
    assert 4 <= len(bench.seen.exchanges("status"))


def test_row_23_status_404_once_is_retried(bench: Bench) -> None:
    """A queue that has just taken a job may not know it yet."""
    assert_unnoticed(bench, faults.answer("status", 404, {"detail": "Not found"}, times=3))


def test_row_23_status_404_after_other_failures_is_still_once(bench: Bench) -> None:
    other = faults.answer("status", 500, {"detail": "Oops"}, times=9)
    assert_unnoticed(bench, other, faults.answer("status", 404, {"detail": "Not found"}))


@pytest.mark.parametrize("status", [404, 410])
def test_row_24_404_for_good_is_expired_and_names_the_id(bench: Bench, status: int) -> None:
    bench.fal.inject(faults.answer("status", status, {"detail": "Not found"}, times=None))
    view = assert_failed(bench, JobExpired, "no longer has this result", "about an hour")
    request_id = bench.request_id(view.job.id)
    assert [request_id] == bench.seen.paid_jobs()
    assert_says(bench.job(view.job.id).error, JobExpired, request_id)


def test_row_24_an_expired_job_can_be_checked_again(bench: Bench) -> None:
    """Twice at once, as a double click does it: the job is taken up one time."""
    bench.fal.inject(faults.answer("status", 404, {"detail": "Not found"}, times=None))
    job_id = bench.run().job.id
    bench.fal.clear_faults()
    bench.runner.check_again(job_id, OWNER)
    bench.runner.check_again(job_id, OWNER)
    assert bench.in_state(job_id, State.STORED).problem is None
    assert len(bench.seen.posts()) == len(bench.seen.exchanges("media")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.unknown_status(times=3),
        faults.unknown_status("completed", times=1),
        faults.patch("status", {"status": None}, times=2),
        faults.missing_logs(times=None),
        faults.patch("status", {"logs": ["a line", None, {"level": "INFO"}, 7]}, times=None),
        faults.patch("status", {"logs": "not a list"}, times=None),
        faults.patch("status", {"queue_position": None}, times=None),
        faults.patch("status", {"metrics": None, "extra": {"new": 1}}, times=None),
    ],
)
def test_row_25_unknown_status_or_odd_logs_are_tolerated(bench: Bench, fault: Fault) -> None:
    assert_unnoticed(bench, fault)


def test_row_26_rising_position_is_shown_as_it_is(bench: Bench) -> None:
    bench.fal.hold()
    bench.fal.inject(faults.rising_position())
    job_id = bench.submitted()
    watcher = bench.watch(job_id)
    bench.polls(6)
    bench.fal.release()
    views = watcher.views()
    shown = [view.live.position or 0 for view in views if isinstance(view.live, Queued)]
    assert len(set(shown)) >= 4 and shown == sorted(shown)
    assert views[-1].job.state is State.STORED


def overdue(new_bench: Callable[..., Bench]) -> tuple[Bench, str]:
    bench = new_bench(deadline=1.0)
    bench.fal.inject(faults.never_completes())
    view = bench.run()
    assert view.job.state is State.SUBMITTED
    assert_says(view.problem, JobOverdue, "still working on it", "Keep waiting, or cancel")
    assert_says(bench.job(view.job.id).error, JobOverdue)
    return bench, view.job.id


def test_row_27_never_completes_offers_to_keep_waiting(new_bench: Callable[..., Bench]) -> None:
    bench, job_id = overdue(new_bench)
    before = len(bench.seen.exchanges("status"))
    bench.runner.check_again(job_id, OWNER)
    assert_says(bench.settled(job_id).problem, JobOverdue)
    assert len(bench.seen.exchanges("status")) > before
    bench.fal.finish(bench.request_id(job_id))
    bench.runner.check_again(job_id, OWNER)
    assert bench.in_state(job_id, State.STORED).problem is None
    assert bench.job(job_id).error is None
    assert len(bench.seen.posts()) == 1 and bench.seen.cancels() == []


def test_row_27_never_completes_offers_to_cancel(
    new_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "GRACE_RUNNING", 0.2)
    bench, job_id = overdue(new_bench)
    bench.runner.cancel(job_id, OWNER)
    assert bench.in_state(job_id, State.CANCELLED).problem is None
    assert len(bench.seen.posts()) == len(bench.seen.cancels()) == 1


# -- results -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.job_fails(), ("Internal server error", "not charged")),
        (faults.job_fails(504, error_type="startup_timeout"), ("not charged",)),
        (faults.job_fails(502, error="Gone", error_type="runner_disconnected"), ("not charged",)),
        (faults.job_fails(500, error=None), ("not charged",)),
        (faults.job_fails(400, error="Bad", error_type="bad_request"), ("Bad", "may be billed")),
        (faults.job_fails(422, error="No LoRA", error_type=None), ("No LoRA", "may be billed")),
        (faults.job_fails(422, error="x" * 9000, error_type="odd"), ("xxx", "may be billed")),
    ],
)
def test_row_28_completed_with_error_tells_the_reason_and_the_bill(
    bench: Bench, fault: Fault, words: tuple[str, ...]
) -> None:
    bench.fal.inject(fault)
    view = assert_failed(bench, JobFailed, *words)
    assert view.problem is not None and len(str(view.problem)) < 500


def test_row_28_a_refused_result_is_told_after_it_was_asked_for_again(bench: Bench) -> None:
    """COMPLETED without an error, and a 400 in place of the result."""
    bench.fal.inject(faults.job_fails(400, {"detail": "Bad things"}, error=None, error_type=None))
    assert_failed(bench, Refused, "400", "Bad things")
    assert len(bench.seen.exchanges("result")) == 5


def test_row_29_completed_twice_is_one_image(bench: Bench) -> None:
    """The process ends after the result is kept and before the image is; then it's asked again."""
    bench.fal.inject(faults.slow("media", 60))
    job_id = bench.submit()
    bench.seen.wait_until(lambda ledger: len(ledger.exchanges("media")) == 1)
    assert bench.job(job_id).state is State.COMPLETED
    bench.restart()
    bench.runner.check_again(job_id, OWNER)
    assert bench.in_state(job_id, State.STORED).problem is None
    bench.runner.check_again(job_id, OWNER)
    bench.restart()
    assert bench.view(job_id).job.state is State.STORED
    assert len(bench.seen.posts()) == len(bench.files()) == len(bench.job(job_id).images) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.infrastructure_error("result", 500, "internal_error"),
        faults.html("result", 502, times=3),
        faults.answer("result", 500, {"detail": "Oops"}, times=9),
        faults.reset_before_reading("result", times=2),
        faults.answer("result", 404, {"detail": "Not yet"}, times=5),
        faults.answer("result", 401, {"detail": "Try again"}),
    ],
)
def test_row_30_result_500_then_200_recovers(bench: Bench, fault: Fault) -> None:
    """However often, where the answer isn't fal's own word on the job: it may be paid for."""
    assert_unnoticed(bench, fault)


@pytest.mark.parametrize(
    "fault", [faults.truncated_json("result", times=7), faults.truncated_body("result", times=3)]
)
def test_row_31_truncated_result_is_fetched_again(bench: Bench, fault: Fault) -> None:
    assert_unnoticed(bench, fault)
    assert len(bench.seen.exchanges("result")) == (fault.times or 0) + 1


def test_row_31_a_result_that_stays_unreadable_can_be_checked_again(
    new_bench: Callable[..., Bench],
) -> None:
    bench = new_bench(deadline=1.0)
    bench.fal.inject(faults.truncated_json("result", times=None))
    view = bench.run()
    assert view.job.state is State.SUBMITTED
    assert_says(view.problem, JobOverdue)
    bench.fal.clear_faults()
    bench.runner.check_again(view.job.id, OWNER)
    assert bench.in_state(view.job.id, State.STORED).problem is None


def test_row_31_a_result_without_its_fields_says_so(bench: Bench) -> None:
    bench.fal.inject(faults.patch("result", {"images": None, "seed": None}, times=None))
    assert_failed(bench, JobFailed, "incomplete", "may be billed")


def test_row_32_wrong_content_type_is_parsed_by_content(bench: Bench) -> None:
    wrong = (("Content-Type", "text/html"),)
    stages = [
        faults.with_headers("submit", wrong),
        faults.with_headers("status", wrong, times=None),
        faults.with_headers("result", wrong),
        faults.with_headers("media", (("Content-Type", "text/plain"),)),
    ]
    assert assert_unnoticed(bench, *stages).job.images[0].format == "PNG"


def test_row_33_no_images_is_an_explicit_failure(bench: Bench) -> None:
    bench.fal.inject(faults.no_images())
    assert_failed(bench, NoImages, "finished without an image", "Generate again")
    assert len(bench.seen.exchanges("result")) == 1


def test_row_34_fewer_images_than_asked_are_kept_and_stated(bench: Bench) -> None:
    bench.fal.inject(faults.fewer_images(2))
    view = bench.run(num_images=3)
    assert view.job.state is State.STORED
    assert len(view.job.images) == len(bench.files()) == 2
    assert view.job.receipt is not None
    assert view.job.receipt.warnings == ("2 of 3 images came back.",)
    assert bench.job(view.job.id).receipt == view.job.receipt


@pytest.mark.parametrize("prompt", ["FLAGME a fox", None], ids=["by the prompt", "by the model"])
def test_row_35_flagged_and_black_is_filtered_not_failed(bench: Bench, prompt: str | None) -> None:
    if prompt is None:
        bench.fal.inject(faults.flagged())
    view = bench.run(num_images=2, **({"prompt": prompt} if prompt else {}))
    assert view.job.state is State.STORED and view.problem is None
    assert [image.flagged for image in view.job.images] == [True, True]
    assert view.job.receipt is not None
    assert view.job.receipt.has_nsfw_concepts == (True, True)
    assert view.job.receipt.warnings == ()


def test_row_36_black_but_not_flagged_is_a_warning(bench: Bench) -> None:
    bench.fal.inject(faults.black())
    view = bench.run()
    assert view.job.state is State.STORED and view.problem is None
    assert [image.flagged for image in view.job.images] == [False]
    assert view.job.receipt is not None
    assert view.job.receipt.warnings == ("Image 1 is all black although nothing was flagged.",)


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_row_37_clock_skew_of_a_day_leaves_durations_alone(bench: Bench, skew: int) -> None:
    """Of the endpoint's clock; a Retry-After by date is measured with it (row 8)."""
    stages: tuple[Fault, ...] = (
        faults.wrong_clock("submit", skew, times=None),
        faults.wrong_clock("status", skew, times=None),
        faults.wrong_clock("result", skew, times=None),
        faults.wrong_clock("media", skew, times=None),
    )
    again = (
        ("Retry-After", formatdate(time.time() + skew + 1, usegmt=True)),
        ("Date", formatdate(time.time() + skew, usegmt=True)),
    )
    busy = faults.answer("submit", 429, {"detail": "Too many"}, again)
    bench.fal.inject(busy, *stages)
    view = bench.run()
    assert view.job.state is State.STORED and view.problem is None
    assert 0 <= (view.job.updated - view.job.created).total_seconds() < 60
    assert view.job.receipt is not None
    assert view.job.receipt.timings == {"inference": 0.1}


@pytest.mark.parametrize("stage", ["status", "result"])
@pytest.mark.parametrize("code", [401, 403])
def test_row_38_key_revoked_mid_job_keeps_the_job_and_asks_for_the_key(
    bench: Bench, stage: str, code: int
) -> None:
    rejected = {"detail": "No user found for Key ID and Secret"}
    bench.fal.inject(faults.answer(stage, code, rejected, times=None))  # type: ignore[arg-type]
    view = bench.run()
    assert view.job.state is State.SUBMITTED
    assert_says(view.problem, KeyRevoked, "no longer works", "Enter a working key", "is kept")
    bench.restart()
    view = bench.settled(view.job.id)
    assert_says(view.problem, KeyRevoked)
    assert_says(bench.job(view.job.id).error, KeyRevoked)
    bench.fal.clear_faults()
    fresh = "fresh-id:fresh-secret"
    bench.runner.set_key(OWNER, SecretStr(fresh))
    assert bench.in_state(view.job.id, State.STORED).problem is None
    assert len(bench.seen.posts()) == 1
    assert bench.seen.posts()[0].mentions(KEY)
    assert bench.seen.exchanges("result")[-1].mentions(fresh)


def test_row_38_a_key_refused_once_is_asked_with_again(bench: Bench) -> None:
    assert_unnoticed(bench, faults.rejected_key("status"))


def test_row_38_a_key_refused_after_other_failures_is_refused_once(bench: Bench) -> None:
    other = faults.infrastructure_error("status", 500, "internal_error")
    assert_unnoticed(bench, other, faults.rejected_key("status"))


# -- what is asked, and what is kept -------------------------------------------


def test_a_good_job_is_posted_followed_fetched_and_copied_once(bench: Bench) -> None:
    """And the status isn't asked again between COMPLETED and the result."""
    view = bench.run(seed=2**64 - 1, num_images=2, enable_prompt_expansion=True)
    stages = [exchange.stage for exchange in bench.seen.exchanges()]
    polls = stages.count("status")
    assert stages == ["submit", *["status"] * polls, "result", "media", "media"]
    assert [e.status for e in bench.seen.exchanges("status")] == [202] * (polls - 1) + [200]
    [body] = bench.seen.submitted_bodies()
    assert body == view.job.request.payload() and body["seed"] == 2**64 - 1
    assert view.job.receipt is not None
    assert view.job.receipt.seed == str(2**64 - 1)
    assert view.job.receipt.request_id == bench.seen.paid_jobs()[0]
    assert view.job.receipt.cost_usd > 0 and not view.job.receipt.cost_is_estimate
    assert json.loads(json.dumps(view.job.receipt.as_json())) == view.job.receipt.as_json()


def test_events_follow_the_queue(bench: Bench) -> None:
    bench.fal.hold()
    job_id = bench.submit()
    watcher = bench.watch(job_id)
    for at_most in (2, 1, 0):
        bench.until(job_id, lambda view, n=at_most: _position(view) <= n)  # type: ignore[misc]
        bench.fal.advance(0.017)
    bench.until(job_id, lambda view: not isinstance(view.live, Queued))
    bench.fal.release()
    states = [view.job.state for view in watcher.views()]
    order = [State.INTENT, State.SUBMITTING, State.SUBMITTED, State.COMPLETED, State.STORED]
    # A watcher sees the newest view, so it may miss one; it never sees one go back.
    assert states == sorted(states, key=order.index)
    assert State.SUBMITTED in states and states[-1] is State.STORED


def _position(view: JobView) -> int:
    position = view.live.position if isinstance(view.live, Queued) else None
    return 9 if position is None else position
