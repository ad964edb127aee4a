"""Rows 1 to 20: the submit. At most one POST once bytes were sent, and every accepted job kept."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from pydantic import SecretStr

from backends import hosted
from generation.errors import (
    AnswerRefused,
    BalanceExhausted,
    ContentRefused,
    KeyMissing,
    KeyRejected,
    ModelUnavailable,
    NotPermitted,
    NotSent,
    OutcomeUnknown,
    PlaygroundError,
    RateLimited,
    RequestRejected,
)
from history.records import State
from tests.faults.bench import KEY, OWNER, Bench, assert_says
from tests.standins import fal_faults as faults
from tests.standins.fal import closed_port
from tests.standins.fal_schema import detail
from tests.standins.fault_table import Fault

UNCERTAIN = ("sent", "may be billed", "check again", "submit again")
BOTH = pytest.mark.parametrize("handled", [False, True], ids=["not accepted", "accepted"])


def assert_refused(
    bench: Bench, fault: Fault, kind: type[PlaygroundError], *words: str
) -> PlaygroundError:
    """The endpoint says no: told at once, posted once, nothing charged, kept in the journal."""
    bench.fal.inject(fault)
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(view.problem, kind, *words)
    assert_says(bench.job(view.job.id).error, kind, *words)
    assert len(bench.seen.posts()) == 1
    assert bench.seen.paid_jobs() == []
    assert bench.seen.exchanges("status") == []
    assert view.problem is not None
    return view.problem


def assert_unknown(bench: Bench, *, paid: int, posts: int = 1) -> None:
    """The submit's outcome can't be known: said so, kept so, and never posted again."""
    view = bench.run()
    assert view.job.state is State.UNKNOWN
    assert_says(view.problem, OutcomeUnknown, *UNCERTAIN)
    bench.runner.check_again(view.job.id, OWNER)
    bench.restart()
    kept = bench.job(view.job.id)
    assert kept.state is State.UNKNOWN
    assert_says(kept.error, OutcomeUnknown, *UNCERTAIN)
    assert_says(bench.view(view.job.id).problem, OutcomeUnknown, *UNCERTAIN)
    assert len(bench.seen.posts()) == posts
    assert len(bench.seen.paid_jobs()) == paid
    assert bench.seen.exchanges("status") == []


def assert_goes_well(bench: Bench) -> None:
    """With the fault gone the next job is like any other."""
    assert bench.run().job.state is State.STORED


# -- refused -------------------------------------------------------------------


def test_row_01_401_says_that_the_key_was_rejected(bench: Bench) -> None:
    assert_refused(bench, faults.rejected_key(), KeyRejected, "The key was rejected", "keys")
    assert_goes_well(bench)


@pytest.mark.parametrize(
    "fault",
    [
        faults.answer("submit", 402, {"detail": "Payment required"}),
        faults.exhausted_balance(),
        faults.answer("submit", 403, {"detail": "User is locked. Reason: fraud review."}),
    ],
    ids=["402", "exhausted", "locked"],
)
def test_row_02_402_or_a_locked_balance_links_to_the_top_up(bench: Bench, fault: Fault) -> None:
    assert_refused(bench, fault, BalanceExhausted, "balance", "Top up", "fal.ai/dashboard/billing")


@pytest.mark.parametrize("said", ["Key lacks the scope API", [{"msg": "Key lacks the scope API"}]])
def test_row_03_403_repeats_the_reason_and_names_the_scope(bench: Bench, said: object) -> None:
    fault = faults.answer("submit", 403, {"detail": said})
    assert_refused(bench, fault, NotPermitted, "Key lacks the scope API", "API scope")


def test_row_03_403_without_a_readable_reason_is_still_explained(bench: Bench) -> None:
    assert_refused(bench, faults.html("submit", 403), NotPermitted, "Forbidden", "API scope")


def test_row_04_404_says_that_the_model_is_unavailable(bench: Bench) -> None:
    fault = faults.answer("submit", 404, {"detail": 'Application "z-image" not found'})
    assert_refused(bench, fault, ModelUnavailable, "Model unavailable", "status.fal.ai")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (
            {"detail": [detail(["body", "loras", 0, "path"], "Not a file", "file_download_error")]},
            "loras.0.path",
            "Not a file",
        ),
        (
            {"detail": [detail(["body", "prompt"], "Too long", "string_too_long")]},
            "prompt",
            "Too long",
        ),
        ({"detail": "Unprocessable"}, "request", "Unprocessable"),
        ({"detail": [{"loc": "prompt", "msg": "odd"}]}, "prompt", "odd"),
        ({"detail": []}, "request", "no reason given"),
    ],
)
def test_row_07_422_names_the_field_and_that_it_may_be_billed(
    bench: Bench, body: object, field: str, reason: str
) -> None:
    fault = faults.answer("submit", 422, body)
    error = assert_refused(bench, fault, RequestRejected, field, reason, "may bill")
    assert error.facts["field"] in (field, f"the {field}")


def test_row_07_422_of_the_content_policy_names_the_policy(bench: Bench) -> None:
    entry = detail(["body", "prompt"], "Flagged", "content_policy_violation")
    fault = faults.answer("submit", 422, {"detail": [entry]})
    assert_refused(bench, fault, ContentRefused, "content policy", "may bill")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (faults.lora_unreadable(1), RequestRejected, ("loras.1.path", "download", "may bill")),
        (faults.content_policy_violation(), ContentRefused, ("content policy", "may bill")),
    ],
)
def test_row_07_422_of_the_runner_is_told_the_same_way(
    bench: Bench, fault: Fault, kind: type[PlaygroundError], words: tuple[str, ...]
) -> None:
    """It arrives as COMPLETED without an error; only the result tells."""
    bench.fal.inject(fault)
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(bench.job(view.job.id).error, kind, *words)
    assert len(bench.seen.posts()) == len(bench.seen.exchanges("result")) == 1


# -- too many requests ---------------------------------------------------------


def test_row_08_429_with_a_short_wait_is_waited_out(bench: Bench) -> None:
    bench.fal.inject(faults.too_many_requests("1"))
    started = time.monotonic()
    view = bench.run()
    assert view.job.state is State.STORED
    assert time.monotonic() - started >= 1.0
    assert [post.accepted for post in bench.seen.posts()] == [False, True]


def test_row_08_429_again_and_again_is_told_after_a_few(bench: Bench) -> None:
    bench.fal.inject(faults.too_many_requests("0", times=None))
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(view.problem, RateLimited, "1 s", "Nothing was generated")
    assert len(bench.seen.posts()) == 4
    assert bench.seen.paid_jobs() == []


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("120", 120, 120),
        ("90.2", 91, 91),
        ("1000000000", 300, 300),
        ("9" * 400, 300, 300),
        ("inf", 300, 300),
        ("nan", 300, 300),
        ("date", 85, 100),
        ("date a day fast", 85, 100),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
    ],
)
def test_row_08_429_with_a_long_wait_counts_down_and_is_capped(
    bench: Bench, header: str, least: int, most: int
) -> None:
    """A date counts from the answer's own date: row 37 holds here too."""
    ahead = 86_400 if "fast" in header else 0
    now = time.time() + ahead
    value = formatdate(now + 95, usegmt=True) if header.startswith("date") else header
    headers = (("Retry-After", value), ("Date", formatdate(now, usegmt=True)))
    fault = faults.answer("submit", 429, {"detail": "Too many"}, headers)
    error = assert_refused(bench, fault, RateLimited, "Too many requests", "asks to wait")
    assert least <= int(str(error.facts["retry_after"])) <= most


@pytest.mark.parametrize("header", ["-5", "0", "", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_row_08_429_with_an_absurd_wait_is_a_short_one(bench: Bench, header: str) -> None:
    bench.fal.inject(faults.too_many_requests(header))
    assert bench.run().job.state is State.STORED
    assert [post.accepted for post in bench.seen.posts()] == [False, True]


# -- unknown -------------------------------------------------------------------


@BOTH
def test_row_05_408_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    bench.fal.inject(faults.answer("submit", 408, {"detail": "Timeout"}, handled=handled))
    assert_unknown(bench, paid=handled)


@BOTH
def test_row_06_409_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    bench.fal.inject(faults.answer("submit", 409, {"detail": "Conflict"}, handled=handled))
    assert_unknown(bench, paid=handled)


@BOTH
def test_row_09_500_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    bench.fal.inject(faults.answer("submit", 500, {"detail": "Oops"}, handled=handled))
    assert_unknown(bench, paid=handled)


@BOTH
def test_row_10_proxy_502_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    page = "<html><title>502</title>nginx</html>"
    bench.fal.inject(faults.answer("submit", 502, page, faults.HTML_TYPE, handled=handled))
    assert_unknown(bench, paid=handled)


@BOTH
def test_row_11_503_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    headers = (*faults.JSON_TYPE, ("Retry-After", "1"), ("X-Fal-Retryable", "true"))
    bench.fal.inject(faults.answer("submit", 503, {"detail": "Busy"}, headers, handled=handled))
    assert_unknown(bench, paid=handled)


@BOTH
def test_row_12_504_is_unknown_and_posted_once(bench: Bench, handled: bool) -> None:
    bench.fal.inject(faults.answer("submit", 504, {"detail": "Timeout"}, handled=handled))
    assert_unknown(bench, paid=handled)


@pytest.mark.parametrize("after", [1, 200, 3000])
def test_row_14_reset_mid_upload_is_unknown_and_posted_once(bench: Bench, after: int) -> None:
    bench.fal.inject(faults.reset_mid_upload("submit", after))
    view = bench.run(prompt="a long prompt " * 250)
    assert view.job.state is State.UNKNOWN
    assert_says(view.problem, OutcomeUnknown, *UNCERTAIN)
    [post] = bench.seen.posts()
    assert post.accepted_bytes == after and not post.received


def test_row_15_reset_after_accept_is_unknown_and_posted_once(bench: Bench) -> None:
    bench.fal.inject(faults.reset_after_accept("submit"))
    assert_unknown(bench, paid=1)


@pytest.mark.parametrize("way", [faults.slow, faults.drip])
def test_row_16_slow_answer_is_unknown_at_the_deadline(
    new_bench: Callable[..., Bench], way: Callable[..., Fault]
) -> None:
    """A dripping one too: each of its bytes would reset a limit for the next."""
    bench = new_bench(submit=2.0)
    bench.fal.inject(way("submit", 0.5 if way is faults.drip else 30))
    started = time.monotonic()
    assert_unknown(bench, paid=1)
    assert time.monotonic() - started < 28


@BOTH
def test_row_17_html_with_200_is_unknown(bench: Bench, handled: bool) -> None:
    page = "<html><body>Sign in to the hotel's network</body></html>"
    bench.fal.inject(faults.answer("submit", 200, page, faults.HTML_TYPE, handled=handled))
    assert_unknown(bench, paid=handled)


@pytest.mark.parametrize("cut", [faults.truncated_json, faults.truncated_body])
def test_row_18_truncated_json_is_unknown(bench: Bench, cut: Callable[..., Fault]) -> None:
    bench.fal.inject(cut("submit"))
    assert_unknown(bench, paid=1)


@pytest.mark.parametrize(
    "fault",
    [
        faults.without_request_id(),
        faults.patch("submit", {"request_id": ""}),
        faults.patch("submit", {"request_id": 7}),
        faults.patch("submit", {"status_url": None}),
        faults.patch("submit", {"cancel_url": []}),
        faults.answer("submit", 200, [], handled=True),
        faults.answer("submit", 200, "null", handled=True),
        faults.answer("submit", 200, '"text"', handled=True),
        faults.answer("submit", 200, b"\xff\xfe", handled=True),
    ],
    ids=["missing", "empty", "number", "status", "cancel", "list", "null", "text", "bytes"],
)
def test_row_19_json_without_request_id_is_unknown(bench: Bench, fault: Fault) -> None:
    bench.fal.inject(fault)
    assert_unknown(bench, paid=1)


# -- never sent ----------------------------------------------------------------


def assert_not_sent(bench: Bench) -> None:
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(view.problem, NotSent, "nothing was sent", "costs nothing twice")
    assert_says(bench.job(view.job.id).error, NotSent, "nothing was sent")
    assert bench.seen.posts() == []


def test_row_13_tls_failure_is_retried_then_not_sent(bench: Bench) -> None:
    bench.fal.inject(faults.tls_failure(times=None))
    assert_not_sent(bench)
    assert len(bench.seen.connections()) == 4


def test_row_13_tls_failure_once_goes_unnoticed(bench: Bench) -> None:
    bench.fal.inject(faults.tls_failure(times=2))
    view = bench.run()
    assert view.job.state is State.STORED and view.problem is None
    assert len(bench.seen.posts()) == 1


def test_row_13_refused_connection_is_retried_then_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as port:
        monkeypatch.setattr(hosted, "FAL_QUEUE_RUN_HOST", f"127.0.0.1:{port}")
        assert_not_sent(bench)


def test_row_13_unknown_host_is_retried_then_not_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def nowhere(host: object, *_: object, **__: object) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(hosted, "FAL_QUEUE_RUN_HOST", "queue.fal.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert_not_sent(bench)
    assert len(asked) == 4


# -- a foreign host ------------------------------------------------------------


def foreign(bench: Bench) -> str:
    """Another name for the stand-in, which is not one of fal's: whoever follows it is seen."""
    return "localhost:" + bench.fal.address.partition(":")[2]


@pytest.mark.parametrize(
    "origin",
    [
        "https://{}",
        "https://queue.fal.run@{}",
        "https://queue.fal.run:443@{}",
        "https://user:word@queue.fal.run",
        "https://{}/queue.fal.run",
        "https://{}#.fal.run",
        "https://{}\\.fal.run",
        "https://queue.fal.run.attacker.example",
        "https://evilfal.run",
        "https://fal.run.",
        "http://queue.fal.run",
        "ftp://queue.fal.run",
        "//queue.fal.run",
        "https://",
        "https://[queue.fal.run]",
        "javascript:alert(1)",
    ],
)
def test_row_20_foreign_host_is_refused_and_never_sees_the_key(bench: Bench, origin: str) -> None:
    bench.fal.inject(faults.foreign_urls(origin.format(foreign(bench))))
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(view.problem, AnswerRefused, "foreign host", "not followed", "may be billed")
    assert_key_stayed_here(bench)
    assert len(bench.seen.posts()) == 1
    # It may be paid for: what the endpoint calls it is kept.
    handle = bench.job(view.job.id).handle
    assert handle is not None and [handle["request_id"]] == bench.seen.paid_jobs()


@pytest.mark.parametrize("which", ["status_url", "response_url", "cancel_url"])
def test_row_20_one_foreign_address_is_enough(bench: Bench, which: str) -> None:
    address = f"https://{foreign(bench)}/fal-ai/z-image/requests/1"
    bench.fal.inject(faults.patch("submit", {which: address}))
    view = bench.run()
    assert_says(view.problem, AnswerRefused, "localhost")
    bench.runner.cancel(view.job.id, OWNER)
    bench.runner.check_again(view.job.id, OWNER)
    assert bench.settled(view.job.id).job.state is State.FAILED
    bench.restart()
    assert_key_stayed_here(bench)
    assert len(bench.seen.exchanges()) == 1


def assert_key_stayed_here(bench: Bench) -> None:
    assert {e.host for e in bench.seen.mentioning(KEY)} == {bench.fal.address}
    assert {c.host for c in bench.seen.connections()} <= {"127.0.0.1"}


# -- the promise: never paid twice silently ------------------------------------


@pytest.mark.parametrize(
    ("phase", "posts", "accepted"),
    [
        ("before connect", 0, 0),
        ("in TLS", 0, 0),
        ("before reading", 1, 0),
        *((f"after {offset} bytes", 1, 0) for offset in (1, 17, 100, 1000, 3500)),
        ("after accept", 1, 1),
        ("truncated answer", 1, 1),
        ("half an answer", 1, 1),
        ("silence", 1, 1),
    ],
)
def test_submit_exchange_dropped_at_every_phase(
    new_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    posts: int,
    accepted: int,
) -> None:
    """At most one POST, ever, once bytes were sent: not later, not after a restart."""
    bench = new_bench(submit=3.0)
    with closed_port() as port:
        if phase == "before connect":
            monkeypatch.setattr(hosted, "FAL_QUEUE_RUN_HOST", f"127.0.0.1:{port}")
        else:
            bench.fal.inject(dropped(phase))
        view = bench.run(prompt="a long prompt " * 280)
        bench.runner.check_again(view.job.id, OWNER)
        bench.runner.cancel(view.job.id, OWNER)
        bench.restart()
        assert bench.job(view.job.id).state is (State.UNKNOWN if posts else State.FAILED)
        assert_says(bench.job(view.job.id).error, OutcomeUnknown if posts else NotSent)
    assert len(bench.seen.posts()) == posts
    assert len(bench.seen.paid_jobs()) == accepted


def dropped(phase: str) -> Fault:
    """The fault of a phase; in TLS for as long as it is tried."""
    if phase.endswith("bytes"):
        return faults.reset_mid_upload("submit", int(phase.split()[1]))
    return {
        "in TLS": faults.tls_failure(times=None),
        "before reading": faults.reset_before_reading("submit"),
        "after accept": faults.reset_after_accept("submit"),
        "truncated answer": faults.truncated_body("submit"),
        "half an answer": faults.truncated_json("submit"),
        "silence": faults.slow("submit", 60),
    }[phase]


def test_a_connection_lost_while_idle_is_not_used_for_a_post(bench: Bench) -> None:
    """The endpoint may close a kept connection at any moment between two jobs."""
    assert bench.run().job.state is State.STORED
    for task in tuple(bench.fal._tasks):
        bench.fal._loop.call_soon_threadsafe(task.cancel)
    give_up = time.monotonic() + 20
    while bench.fal._tasks and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.1)  # the end of a connection travels through the kernel
    assert bench.run().job.state is State.STORED
    assert len(bench.seen.posts()) == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_jobs_with_random_faults_are_all_accounted_for(
    new_bench: Callable[..., Bench], seed: int
) -> None:
    """The bench compares the stand-in's ledger with the journal at its end."""
    bench = new_bench(submit=4.0, answer=4.0)
    dice = random.Random(seed)
    bench.fal.inject(*(strike for _ in range(14) for strike in random_strike(dice)))
    ids = [bench.submit() for _ in range(20)]
    views = [bench.settled(job_id) for job_id in ids]
    bench.restart()
    assert len(set(bench.seen.paid_jobs())) == len(bench.seen.paid_jobs())
    handles = [job.handle["request_id"] for job in map(bench.job, ids) if job.handle]
    assert len(handles) == len(set(handles))
    assert set(handles) <= set(bench.seen.paid_jobs())
    for view in views:
        kept = bench.settled(view.job.id).job
        assert kept.state is view.job.state
        assert (kept.state is State.STORED) == bool(kept.images)
    bodies = [body["prompt"] for body in bench.seen.submitted_bodies()]
    assert len(bodies) == len(set(bodies)), "posted twice"


def random_strike(dice: random.Random) -> list[Fault]:
    times = dice.randint(1, 3)
    return dice.choice(
        [
            [faults.reset_after_accept("submit")],
            [faults.reset_before_reading("submit")],
            [faults.reset_mid_upload("submit", dice.randint(1, 150))],
            [faults.truncated_json("submit")],
            [faults.html("submit", 502)],
            [faults.slow("submit", 8.0)],
            [faults.answer("status", 404, {"detail": "Not found"}, times=times)],
            [faults.reset_before_reading("status", times=times)],
            [faults.infrastructure_error("status", 503, "runner_disconnected", times=times)],
            [faults.truncated_json("result", times=times)],
            [faults.html("result", 502, times=times)],
            [faults.truncated_body("media", times=times)],
            [faults.expired(times=times)],
            [faults.no_images()],
            [faults.job_fails()],
            [faults.content_policy_violation()],
        ]
    )


def test_submitting_again_by_hand_is_another_job(bench: Bench) -> None:
    """What the page offers for an UNKNOWN job: the visitor decides, and both are kept."""
    bench.fal.inject(faults.reset_before_reading("submit"))
    lost = bench.run(prompt="once more")
    bench.runner.dismiss(lost.job.id, OWNER)
    bench.runner.dismiss(lost.job.id, OWNER)
    assert bench.view(lost.job.id).job.state is State.CANCELLED
    again = bench.run(prompt="once more")
    assert again.job.state is State.STORED and again.job.id != lost.job.id
    assert [post.accepted for post in bench.seen.posts()] == [False, True]


@pytest.mark.parametrize("key", ["ключ:secret", "id:sec\nret", "", "id:s\x00"])
def test_a_key_that_no_header_can_carry_is_no_key(bench: Bench, key: str) -> None:
    """It is refused before a job begins, and named nowhere."""
    bench.runner.set_key(OWNER, SecretStr(key))
    if key:
        with pytest.raises(KeyMissing, match="needs a fal key"):
            bench.submit()
    else:
        assert bench.run().job.state is State.STORED  # nothing entered: the owner's key is used
    bench.runner.set_key(OWNER, None)
