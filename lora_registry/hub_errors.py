"""What the Hub's refusals mean, said in our own errors."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from generation.errors import (
    AdapterError,
    AdapterGated,
    AdapterNotFound,
    HubUnreachable,
    SignInLapsed,
)

MAX_WAIT: Final = 600
_NOT_THERE: Final = (
    RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, DisabledRepoError,
)  # fmt: skip


def meaning(
    exc: HfHubHTTPError, subject: str, endpoint: str, personal: bool = False
) -> AdapterError:
    """An error for `subject`, a repository or a file of one, on the Hub at `endpoint`."""
    status = exc.response.status_code
    if isinstance(exc, GatedRepoError):  # before the next: it is a kind of "not found" as well
        repo = "/".join(subject.split("/")[:2])
        return AdapterGated(repo=repo, link=f"{endpoint}/{repo}")
    if "invalid credentials" in exc.response.headers.get("X-Error-Message", "").lower():
        if personal:  # taken back on the Hub before its time
            return SignInLapsed(reference=subject)
        return HubUnreachable(reason="it rejects the token in HF_TOKEN")
    if isinstance(exc, _NOT_THERE) or status in (401, 403, 404):
        return AdapterNotFound(reference=subject)
    if isinstance(exc, BadRequestError):
        return HubUnreachable(reason="it does not understand the question")
    return HubUnreachable(reason=f"it answered HTTP {status}")


def seconds_to_wait(response: httpx2.Response) -> int:
    """From the rate limit's own header, else Retry-After as seconds or a date; capped."""
    info = parse_ratelimit_headers(response.headers)
    if info is not None and info.remaining == 0:
        return _capped(info.reset_in_seconds)
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return _capped(int(text))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 60
    return _capped(round((moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()))


def words(exc: Exception) -> str:
    """Why there is no answer, for “can't be reached (…)”."""
    if isinstance(exc, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(exc, httpx2.ConnectError):
        return "no connection"
    if isinstance(exc, httpx2.NetworkError | httpx2.RemoteProtocolError):
        return "the connection broke"
    return type(exc).__name__


def _capped(seconds: int) -> int:
    return min(max(seconds, 1), MAX_WAIT)
