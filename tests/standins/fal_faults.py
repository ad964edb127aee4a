"""The usual faults of the fal stand-in, each a function that makes a `Fault`.

All take `times=` (the next n exchanges, or `None` for always) and, after the submit,
`request_id=`. Whatever is missing here is `answer(...)` or `patch(...)`.
"""

import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, TypedDict, Unpack

from .fal_schema import detail
from .fault_table import Fault, Stage
from .wire import Headers

JSON_TYPE: Headers = (("Content-Type", "application/json"),)
HTML_TYPE: Headers = (("Content-Type", "text/html; charset=utf-8"),)


class Scope(TypedDict, total=False):
    """How often a fault strikes: the next `times` (None: always), one request id or any."""

    times: int | None
    request_id: str | None


def as_bytes(body: object) -> bytes:
    """Bytes and text as they are, anything else as JSON."""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


# Requests that are cut off


def tls_failure(**scope: Unpack[Scope]) -> Fault:
    """The connection is accepted, the handshake fails: nothing of a request was sent."""
    return Fault("connect", "tls_failure", **scope)


def reset_before_reading(stage: Stage, **scope: Unpack[Scope]) -> Fault:
    """Reset after the headers, none of the body read; nothing is carried out."""
    return Fault(stage, "reset_before_reading", **scope)


def reset_mid_upload(stage: Stage, after: int, **scope: Unpack[Scope]) -> Fault:
    """Reset after `after` bytes of the body; nothing is carried out."""
    return Fault(stage, "reset_mid_upload", amount=after, **scope)


# Answers that say something else


def answer(
    stage: Stage,
    status: int,
    body: object = b"",
    headers: Headers = JSON_TYPE,
    *,
    handled: bool = False,
    **scope: Unpack[Scope],
) -> Fault:
    """This answer in place of the real one; `handled` says whether the work is done first."""
    return Fault(
        stage, "answer", status=status, body=as_bytes(body), headers=headers, handled=handled,
        **scope,
    )  # fmt: skip


def html(stage: Stage, status: int = 200, **scope: Unpack[Scope]) -> Fault:
    """A proxy's page; fal_client takes a 502 to 504 with the word `nginx` for one."""
    page = f"<html><head><title>{status}</title></head><body>nginx</body></html>"
    return answer(stage, status, page, HTML_TYPE, **scope)


def infrastructure_error(
    stage: Stage, status: int, error_type: str, **scope: Unpack[Scope]
) -> Fault:
    """fal's own trouble: `detail` is text, and the type stands in the body and a header."""
    body = {"detail": error_type.replace("_", " ").capitalize(), "error_type": error_type}
    headers = (*JSON_TYPE, ("X-Fal-Error-Type", error_type), ("X-Fal-Retryable", "true"))
    return answer(stage, status, body, headers, **scope)


def too_many_requests(retry_after: str, stage: Stage = "submit", **scope: Unpack[Scope]) -> Fault:
    """429; `retry_after` as sent: seconds, an HTTP date, or nonsense."""
    headers = (*JSON_TYPE, ("Retry-After", retry_after))
    return answer(stage, 429, {"detail": "Too many requests"}, headers, **scope)


def rejected_key(stage: Stage = "submit", **scope: Unpack[Scope]) -> Fault:
    return answer(stage, 401, {"detail": "No user found for Key ID and Secret"}, **scope)


def exhausted_balance(stage: Stage = "submit", **scope: Unpack[Scope]) -> Fault:
    reason = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard."
    return answer(stage, 403, {"detail": reason}, **scope)


def patch(stage: Stage, changes: Mapping[str, Any], **scope: Unpack[Scope]) -> Fault:
    """The real JSON with a merge patch (RFC 7396) over it: `None` takes a key away."""
    return Fault(stage, "patch", body=as_bytes(dict(changes)), **scope)


def without_request_id(**scope: Unpack[Scope]) -> Fault:
    return patch("submit", {"request_id": None}, **scope)


def foreign_urls(origin: str, **scope: Unpack[Scope]) -> Fault:
    """The submit answer names another origin, such as `https://attacker.example`."""
    names = {"response_url": "", "status_url": "/status", "cancel_url": "/cancel"}
    base = f"{origin}/fal-ai/z-image/requests/foreign"
    return patch("submit", {name: base + tail for name, tail in names.items()}, **scope)


def unknown_status(word: str = "PAUSED", **scope: Unpack[Scope]) -> Fault:
    return patch("status", {"status": word}, **scope)


def missing_logs(**scope: Unpack[Scope]) -> Fault:
    return patch("status", {"logs": None}, **scope)


def with_headers(stage: Stage, headers: Headers, **scope: Unpack[Scope]) -> Fault:
    """The real answer with these headers in place of its own: a wrong `Content-Type`, `Date`."""
    return Fault(stage, "headers", headers=headers, **scope)


def wrong_clock(stage: Stage, seconds: float, **scope: Unpack[Scope]) -> Fault:
    """A `Date` header that is `seconds` ahead (negative: behind)."""
    date = formatdate(time.time() + seconds, usegmt=True)
    return with_headers(stage, (("Date", date),), **scope)


def truncated_json(stage: Stage, **scope: Unpack[Scope]) -> Fault:
    """Valid HTTP, but the JSON stops half-way."""
    return Fault(stage, "truncated_json", **scope)


# Answers that arrive in another way


def reset_after_accept(stage: Stage, **scope: Unpack[Scope]) -> Fault:
    """The request is carried out, then the connection is reset: no byte of the answer."""
    return Fault(stage, "reset_after_accept", **scope)


def slow(stage: Stage, seconds: float, **scope: Unpack[Scope]) -> Fault:
    """The request is carried out at once, its answer's headers come `seconds` later."""
    return Fault(stage, "slow", seconds=seconds, **scope)


def drip(stage: Stage, seconds: float = 1.0, **scope: Unpack[Scope]) -> Fault:
    """The body comes one byte every `seconds`."""
    return Fault(stage, "drip", seconds=seconds, **scope)


def truncated_body(stage: Stage, **scope: Unpack[Scope]) -> Fault:
    """The headers announce the whole body, half of it comes, the connection closes."""
    return Fault(stage, "truncated_body", **scope)


# Media


def oversized(amount: int = 200_000_000, *, declared: bool = True, **scope: Unpack[Scope]) -> Fault:
    """An image followed by zeros, `amount` bytes in all, with or without a Content-Length."""
    kind = "oversized_declared" if declared else "oversized_streamed"
    return Fault("media", kind, amount=amount, **scope)


def media(body: bytes, content_type: str = "image/png", **scope: Unpack[Scope]) -> Fault:
    """Other bytes under an image's name: a bomb, HTML, SVG."""
    return answer("media", 200, body, (("Content-Type", content_type),), **scope)


def jpeg_as_png(**scope: Unpack[Scope]) -> Fault:
    """The right picture as JPEG, with the type it would have had."""
    return Fault("media", "jpeg_as_png", **scope)


def redirect(location: str, stage: Stage = "media", **scope: Unpack[Scope]) -> Fault:
    return answer(stage, 302, b"", (("Location", location),), **scope)


# Jobs


def job_fails(
    status: int = 500,
    body: object = None,
    *,
    error: str | None = "Internal server error",
    error_type: str | None = "runner_server_error",
    **scope: Unpack[Scope],
) -> Fault:
    """The status says COMPLETED with this error, the result answers with `status` and `body`.

    With `error=None, error_type=None` the status shows nothing, and only the result tells.
    """
    shown = {"detail": error, "error_type": error_type} if body is None else body
    return Fault(
        "job", "fails", status=status, body=as_bytes(shown), error=error, error_type=error_type,
        **scope,
    )  # fmt: skip


def content_policy_violation(**scope: Unpack[Scope]) -> Fault:
    """Refused by fal's content checker: COMPLETED without an error, the result is a 422."""
    said = "The content could not be processed because it was flagged by a content checker."
    entry = detail(["body", "prompt"], said, "content_policy_violation")
    return job_fails(422, {"detail": [entry]}, error=None, error_type=None, **scope)


def lora_unreadable(index: int = 0, **scope: Unpack[Scope]) -> Fault:
    """A LoRA that fal can't fetch, found out only by the runner."""
    said = "Failed to download the file. Please check if the URL is accessible and try again."
    entry = detail(["body", "loras", index, "path"], said, "file_download_error")
    return job_fails(422, {"detail": [entry]}, error=None, error_type=None, **scope)


def never_completes(**scope: Unpack[Scope]) -> Fault:
    return Fault("job", "never_completes", **scope)


def rising_position(**scope: Unpack[Scope]) -> Fault:
    """Each poll finds the job one place further back, until its time in the queue is over."""
    return Fault("job", "rising_position", **scope)


def no_images(**scope: Unpack[Scope]) -> Fault:
    return Fault("job", "no_images", **scope)


def fewer_images(amount: int, **scope: Unpack[Scope]) -> Fault:
    return Fault("job", "fewer_images", amount=amount, **scope)


def black(**scope: Unpack[Scope]) -> Fault:
    """All black, and not flagged."""
    return Fault("job", "black", **scope)


def flagged(**scope: Unpack[Scope]) -> Fault:
    """All black and flagged, as the safety checker leaves them."""
    return Fault("job", "flagged", **scope)


def expired(**scope: Unpack[Scope]) -> Fault:
    """404 for the media URLs of the first result; the result, fetched again, has fresh ones."""
    return Fault("job", "expired", **scope)
