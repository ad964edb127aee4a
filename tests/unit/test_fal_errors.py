"""fal's HTTP answers in our own errors: by status, by body, by header."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import httpx
import pytest

from backends.fal_errors import job_failed, reason_of, refusal, retry_after, submit_error
from generation.errors import (
    BalanceExhausted,
    ContentRefused,
    JobCancelled,
    JobFailed,
    KeyRejected,
    ModelUnavailable,
    NotPermitted,
    OutcomeUnknown,
    PlaygroundError,
    RateLimited,
    Refused,
    RequestRejected,
)


def answered(status: int, body: object = None, **headers: str) -> PlaygroundError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return submit_error(httpx.Response(status, content=content, headers=headers))


@pytest.mark.parametrize("status", [408, 409, 500, 501, 502, 503, 504, 520, 599])
@pytest.mark.parametrize("body", [{"detail": "no job was made, honestly"}, b"<html>", b""])
def test_only_a_plain_refusal_says_that_no_job_exists(status: int, body: object) -> None:
    error = answered(status, body)
    assert type(error) is OutcomeUnknown
    assert error.facts == {"reason": f"HTTP {status}"}


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (301, "Moved", Refused),
        (400, "Bad request", Refused),
        (401, "No user found", KeyRejected),
        (401, [{"msg": "No user found"}], KeyRejected),
        (402, "Payment required", BalanceExhausted),
        (403, "User is locked. Reason: Exhausted balance.", BalanceExhausted),
        (403, "EXHAUSTED BALANCE", BalanceExhausted),
        (403, "Key lacks scope", NotPermitted),
        (403, None, NotPermitted),
        (404, "Application not found", ModelUnavailable),
        (405, "Method not allowed", Refused),
        (413, "Too large", Refused),
        (422, "Unprocessable", RequestRejected),
        (422, {"unexpected": "shape"}, RequestRejected),
        (422, ["text"], RequestRejected),
        (422, [{"type": "content_policy_violation", "msg": "flagged"}], ContentRefused),
        (429, "Slow down", RateLimited),
    ],
)
def test_a_refusal_by_status_and_detail(status: int, detail: object, kind: type[Refused]) -> None:
    error = answered(status, {"detail": detail})
    assert type(error) is kind
    assert error.facts["status"] == status
    assert error.facts["reason"]
    assert PlaygroundError.from_record(error.record()).cause == error.cause


@pytest.mark.parametrize(
    ("loc", "field"),
    [
        (["body", "loras", 0, "path"], "loras.0.path"),
        (["body", "image_size", "width"], "image_size.width"),
        (["query", "logs"], "query.logs"),
        (["body"], "the request"),
        ([], "the request"),
        (None, "the request"),
        ("prompt", "prompt"),
        (3, "3"),
    ],
)
def test_a_rejection_names_the_field_as_the_request_does(loc: object, field: str) -> None:
    error = refusal(422, [{"loc": loc, "msg": "no"}], {})
    assert isinstance(error, RequestRejected)
    assert error.facts["field"] == field
    assert error.cause == f"The endpoint rejected {field}: no."


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ("one\n  two\tthree", "one two three"),
        ([{"msg": "first"}, {"msg": "second"}], "first"),
        ([{"type": "odd"}], "invalid"),
        ([], "no reason given"),
        ("", "no reason given"),
        (None, "no reason given"),
        ("x" * 9000, "x" * 299 + "…"),
        ("with {braces} and {0}", "with {braces} and {0}"),
    ],
)
def test_a_reason_is_one_line_of_text(detail: object, reason: str) -> None:
    assert reason_of(detail) == reason
    assert reason in Refused(status=400, reason=reason_of(detail)).cause


def test_an_answer_that_isnt_json_has_its_phrase_for_a_reason() -> None:
    assert answered(403, b"<html>\xff").facts["reason"] == "Forbidden"
    assert answered(400, ["bare list"]).facts["reason"] == "['bare list']"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 1), ("0", 1), ("-9", 1), ("1.2", 2), (" 17 ", 17), ("300", 300), ("301", 300),
     ("1e9", 300), ("nan", 300), ("-inf", 300), ("soon", 1), ("Sat, 99 Foo 2026", 1)],
)  # fmt: skip
def test_retry_after_is_between_a_second_and_five_minutes(header: str, seconds: int) -> None:
    assert retry_after({"retry-after": header}) == seconds
    assert retry_after({}) == 1


@pytest.mark.parametrize("skew", [-86_400, 0, 86_400])
def test_retry_after_as_a_date_is_measured_by_the_answers_own_clock(skew: int) -> None:
    there = time.time() + skew
    until, date = formatdate(there + 40, usegmt=True), formatdate(there, usegmt=True)
    assert retry_after({"retry-after": until, "date": date}) == 40
    assert retry_after({"retry-after": date, "date": date}) == 1
    if not skew:
        assert 30 <= retry_after({"retry-after": until}) <= 40
        assert 30 <= retry_after({"retry-after": until, "date": "yesterday"}) <= 40


SERVERS_FAULT = (
    "request_timeout startup_timeout runner_scheduling_failure runner_connection_timeout "
    "runner_connection_refused runner_connection_error runner_disconnected "
    "runner_incomplete_response runner_server_error internal_error"
).split()


@pytest.mark.parametrize("kind", SERVERS_FAULT)
def test_failures_of_fals_own_machines_arent_charged(kind: str) -> None:
    error = job_failed("Oops", kind)
    assert isinstance(error, JobFailed)
    assert "Oops" in error.cause and "not charged" in error.remedy


@pytest.mark.parametrize("kind", ["bad_request", "content_policy_violation", "client_disconnected",
                                  "model_error", "", None])  # fmt: skip
def test_any_other_failure_may_be_billed(kind: str | None) -> None:
    error = job_failed("Oops", kind)
    assert isinstance(error, JobFailed) and "may be billed" in error.remedy


def test_a_failure_without_words_is_named_by_its_type() -> None:
    assert "startup_timeout" in job_failed("", "startup_timeout").cause
    assert "no reason given" in job_failed("", None).cause


def test_a_cancelled_job_is_cancelled_not_failed() -> None:
    assert type(job_failed("Request was cancelled", "client_cancelled")) is JobCancelled
