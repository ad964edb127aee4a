"""fal's HTTP answers in our own errors.

Shapes and codes: fal's documentation of the queue and of model errors, read in
November 2026.
"""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from generation.errors import (
    BalanceExhausted,
    ContentRefused,
    Fact,
    JobCancelled,
    JobError,
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

MAX_WAIT: Final = 300  # seconds; an absurd Retry-After must not park a page for a year
PIECE: Final = 8  # characters of a key that are no coincidence

CANCELLED: Final = "client_cancelled"  # the type of a job that somebody cancelled

# Failures of fal's own machines: "5xx is not charged".
NOT_CHARGED: Final = frozenset(
    {
        "request_timeout",
        "startup_timeout",
        "runner_scheduling_failure",
        "runner_connection_timeout",
        "runner_connection_refused",
        "runner_connection_error",
        "runner_disconnected",
        "runner_incomplete_response",
        "runner_server_error",
        "internal_error",
    }
)


def submit_error(response: httpx.Response) -> PlaygroundError:
    """What a submit that wasn't answered with a job means.

    Only a plain refusal says that no job exists; everything else (408, 409, a
    proxy's 502, any 5xx) leaves that open.
    """
    status = response.status_code
    if status in (408, 409) or status >= 500:
        return OutcomeUnknown(reason=f"HTTP {status}")
    return refusal(status, _detail(response), response.headers)


def refusal(status: int, detail: Any, headers: Mapping[str, str]) -> Refused:
    """A 4xx of the endpoint, for `detail` as text or as a list of field errors."""
    reason = reason_of(detail)
    facts: dict[str, Fact] = {"status": status, "reason": reason}
    if status == 401:
        return KeyRejected(**facts)
    if status == 402 or (status == 403 and _is_balance(reason)):
        return BalanceExhausted(**facts)
    if status == 403:
        return NotPermitted(**facts)
    if status == 404:
        return ModelUnavailable(**facts)
    if status == 429:
        return RateLimited(**facts, retry_after=retry_after(headers))
    if status == 422:
        return _rejected(detail, facts)
    return Refused(**facts)


def retry_after(headers: Mapping[str, str]) -> int:
    """Whole seconds to wait by the Retry-After header, between 1 and MAX_WAIT.

    A date counts from the answer's own date: two clocks may be a day apart.
    """
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text, since=_timestamp(headers.get("date", "")))
    if not math.isfinite(seconds):
        return MAX_WAIT
    return max(1, min(MAX_WAIT, math.ceil(seconds)))


def job_failed(error: str, error_type: str | None) -> JobError:
    """A COMPLETED status that carries an error."""
    if error_type == CANCELLED:
        return JobCancelled()
    billing = "not charged" if error_type in NOT_CHARGED else "may be billed"
    return JobFailed(reason=_short(error or error_type or "no reason given"), billing=billing)


def reason_of(detail: Any) -> str:
    """One line out of fal's `detail`, which is text or a list of field errors."""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _short(str(detail[0].get("msg", "invalid")))
    return _short(str(detail)) if detail else "no reason given"


@contextmanager
def unsaid(key: str) -> Iterator[None]:
    """Keep `key` out of errors, which are shown and written down: an answer may quote it."""
    try:
        yield
    except PlaygroundError as exc:
        facts = {name: _unless_quoted(key, fact) for name, fact in exc.facts.items()}
        if facts == exc.facts:
            raise
        raise type(exc)(**facts) from exc.__cause__


def _unless_quoted(key: str, fact: Fact) -> Fact:
    pieces = (key[at : at + PIECE] for at in range(len(key) - PIECE + 1))
    if isinstance(fact, str) and any(piece in fact for piece in pieces):
        return "its answer quoted the key and isn't shown"
    return fact


def _seconds(text: str, since: float | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        pass
    moment = _timestamp(text)
    return 1.0 if moment is None else moment - (time.time() if since is None else since)


def _timestamp(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _rejected(detail: Any, facts: dict[str, Fact]) -> Refused:
    first = detail[0] if isinstance(detail, list) and detail else {}
    first = first if isinstance(first, dict) else {}
    if first.get("type") == "content_policy_violation":
        return ContentRefused(**facts)
    return RequestRejected(**facts, field=_field(first.get("loc")))


def _field(loc: Any) -> str:
    """The dotted wire name of a location such as ["body", "loras", 0, "path"]."""
    parts = loc if isinstance(loc, list) else [loc]
    return ".".join(str(part) for part in parts if part not in (None, "body")) or "the request"


def _is_balance(reason: str) -> bool:
    return "balance" in reason.lower() or "locked" in reason.lower()


def _detail(response: httpx.Response) -> Any:
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return response.reason_phrase or "no reason given"
    return body.get("detail", body) if isinstance(body, dict) else body


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"
