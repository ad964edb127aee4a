"""The Hub's answers that are not about content: refusals, redirects, and its rate limits.

Statuses, headers and texts as the Hub sends them. One differs: for a missing repository it tells
an anonymous client only `401 Invalid username or password.`, which `huggingface_hub` understands
by the address alone, and by `https` addresses only; here `X-Error-Code` says so as well.
"""

import threading
import time
import uuid
from dataclasses import dataclass, field
from urllib.parse import quote

from .hub_repos import Repo, RepoFile
from .wire import Answer, Headers, with_header

WINDOW = 300
"""Seconds of a rate limit's window."""
QUOTAS = {"api": 500, "resolvers": 3000}
"""Requests that the Hub allows an anonymous address in a window."""


@dataclass(frozen=True)
class FileAnswer(Answer):
    """An answer whose body is a part of a file: the bytes from `start` up to `end`."""

    file: RepoFile | None = field(default=None, compare=False)
    start: int = 0
    end: int = 0


def length(answer: Answer) -> int:
    """Bytes of the body."""
    if isinstance(answer, FileAnswer) and answer.file is not None:
        return answer.end - answer.start
    return len(answer.body)


def part(answer: Answer, start: int, end: int) -> bytes:
    """Some bytes of the body."""
    if isinstance(answer, FileAnswer) and answer.file is not None:
        return answer.file.read(answer.start + start, answer.start + end)
    return answer.body[start:end]


def refusal(status: int, message: str, code: str | None = None, headers: Headers = ()) -> Answer:
    """An error as JSON, which its headers tell as well."""
    told: Headers = (("X-Error-Message", message),)
    if code:
        told = (("X-Error-Code", code), *told)
    return Answer.json(status, {"error": message}, (*told, *headers))


def bad_credentials() -> Answer:
    return refusal(401, "Invalid credentials in Authorization header")


def repo_not_found(anonymous: bool) -> Answer:
    if anonymous:
        challenge = ("WWW-Authenticate", 'Bearer realm="Authentication required", charset="UTF-8"')
        return refusal(401, "Invalid username or password.", "RepoNotFound", (challenge,))
    return refusal(404, "Repository not found", "RepoNotFound")


def gated(repo: Repo, base: str, anonymous: bool) -> Answer:
    restricted = f"Access to model {repo.id} is restricted"
    if anonymous:
        must = "You must have access to it and be authenticated to access it. Please log in."
        return refusal(401, f"{restricted}. {must}", "GatedRepo")
    ask = f"Visit {base}/{repo.id} to ask for access."
    return refusal(403, f"{restricted} and you are not in the authorized list. {ask}", "GatedRepo")


def revision_not_found(revision: str) -> Answer:
    return refusal(404, f"Invalid rev id: {quote(revision)}", "RevisionNotFound")


def entry_not_found(repo: Repo) -> Answer:
    return refusal(404, "Entry not found", "EntryNotFound", (("X-Repo-Commit", repo.sha),))


def bad_request(message: str) -> Answer:
    return refusal(400, message)


def redirect(status: int, location: str, headers: Headers = ()) -> Answer:
    said = f"Redirecting to {location}".encode()
    typed = ("Content-Type", "text/plain; charset=utf-8")
    return Answer(status, (typed, ("Location", location), *headers), said)


def limit_headers(bucket: str, remaining: int, reset: int, quota: int) -> Headers:
    return (
        ("RateLimit", f'"{bucket}";r={remaining};t={reset}'),
        ("RateLimit-Policy", f'"fixed window";"{bucket}";q={quota};w={WINDOW}'),
    )


def too_many_requests(
    bucket: str = "api", reset: int = 55, retry_after: str | None = None, quota: int = 500
) -> Answer:
    """429; `retry_after` as sent, where it is sent: the Hub itself leaves it out."""
    said = "We had to rate limit your IP (127.0.0.1). To continue using our service, log in."
    headers = limit_headers(bucket, 0, reset, quota)
    if retry_after is not None:
        headers = (*headers, ("Retry-After", retry_after))
    return refusal(429, said, headers=headers)


class RateLimits:
    """Counts requests as the Hub does, and says in every answer how many are left.

    `quota` is what it enforces on its API; None: it counts and lets everything pass.
    """

    def __init__(self, quota: int | None = None) -> None:
        self._lock = threading.Lock()
        self._enforced = quota is not None
        self._quotas = QUOTAS | ({"api": quota} if quota is not None else {})
        self._used: dict[str, int] = {}
        self._began = time.monotonic()

    def count(self, bucket: str) -> tuple[Headers, Answer | None]:
        """The headers for one more request, and the refusal where it is one too many."""
        with self._lock:
            reset = self._seconds_left()
            used = self._used[bucket] = self._used.get(bucket, 0) + 1
        quota = self._quotas[bucket]
        if self._enforced and used > quota:
            return (), too_many_requests(bucket, reset, quota=quota)
        left = max(quota - used, 0 if self._enforced else 1)
        return limit_headers(bucket, left, reset, quota), None

    def _seconds_left(self) -> int:
        passed = time.monotonic() - self._began
        if passed >= WINDOW:
            self._began, self._used, passed = time.monotonic(), {}, 0.0
        return max(1, int(WINDOW - passed))


def signed(headers: Headers) -> Headers:
    """With the id that every answer of the Hub carries."""
    return with_header(headers, "X-Request-Id", f"Root=1-{uuid.uuid4()}")
