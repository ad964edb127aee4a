"""fal's HTTP answers in our own errors.

Shapes and codes: fal's documentation of the queue and of model errors, read in
November 2026.
"""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx

from generation.errors import (
    BalanceExhausted,
    ContentRefused,
    Fact,
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
    """Whole seconds to wait by the Retry-After header, between 1 and MAX_WAIT."""
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    if not math.isfinite(seconds):
        return MAX_WAIT
    return max(1, min(MAX_WAIT, math.ceil(seconds)))


def job_failed(error: str, error_type: str | None) -> JobFailed:
    """A COMPLETED status that carries an error."""
    billing = "not charged" if error_type in NOT_CHARGED else "may be billed"
    return JobFailed(reason=_short(error or error_type or "no reason given"), billing=billing)


def reason_of(detail: Any) -> str:
    """One line out of fal's `detail`, which is text or a list of field errors."""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _short(str(detail[0].get("msg", "invalid")))
    return _short(str(detail)) if detail else "no reason given"


def _seconds(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return 1.0


def _rejected(detail: Any, facts: dict[str, Fact]) -> Refused:
    first = detail[0] if isinstance(detail, list) and detail else {}
    first = first if isinstance(first, dict) else {}
    if first.get("type") == "content_policy_violation":
        return ContentRefused(**facts)
    loc = [str(part) for part in first.get("loc") or ["request"] if part != "body"]
    return RequestRejected(**facts, field=".".join(loc) or "the request")


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
