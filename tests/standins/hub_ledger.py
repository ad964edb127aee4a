"""What the stand-in Hub saw: every request, the part of it that matters, and what was sent.

Tokens are kept as their SHA-256 only, so that a ledger can lie about in a log; `token_hash` of
the token that a test gave out finds its requests again.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from .wire import Headers, header


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True)
class HubRequest:
    """One request and what became of it."""

    stage: str
    """The route: `list`, `info`, `tree`, `paths`, `auth`, `refs`, `whoami`, `harnesses`,
    `resolve`, `cache`, `cdn` or `unknown`."""
    method: str
    host: str
    target: str
    """Path and query as sent."""
    headers: Headers
    """Without `Authorization`."""
    authorized: bool = False
    """An `Authorization` header came."""
    token: str | None = None
    """The hash of the bearer token in it."""
    number: int = 0
    time: float = field(default_factory=time.time)
    body: str = ""
    fault: str | None = None
    status: int | None = None
    """The status of the answer; None where none was tried."""
    sent_bytes: int = 0
    """Of the answer's body."""
    answered: bool = False
    """The answer was written to the end while the client was still there."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def range(self) -> str | None:
        return header(self.headers, "range")

    def mentions(self, text: str) -> bool:
        """Whether the text stands anywhere in the request, `Authorization` aside."""
        places = [self.host, self.target, self.body, *(f"{k}: {v}" for k, v in self.headers)]
        return any(text in place for place in places)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        return cls(**row | {"headers": tuple((k, v) for k, v in row["headers"])})


class HubLedger:
    """Written by the stand-in's thread, read by tests. Entries are values, never changed."""

    def __init__(self, path: Path | None = None) -> None:
        self._changed = threading.Condition()
        self._requests: list[HubRequest] = []
        self._file = path.open("a", encoding="utf-8") if path else None

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]]) -> Self:
        """Rebuild from rows; of several about one request the last wins."""
        ledger = cls()
        latest = {row["number"]: HubRequest.from_row(row) for row in rows}
        ledger._requests = [latest[number] for number in sorted(latest)]
        return ledger

    @classmethod
    def read(cls, path: Path) -> Self:
        """The ledger of a stand-in that has ended, from its JSON-lines file."""
        return cls.from_rows(json.loads(line) for line in path.read_text("utf-8").splitlines())

    def rows(self) -> list[dict[str, Any]]:
        return [asdict(request) for request in self.requests()]

    def open(self, request: HubRequest) -> int:
        """Enter a request; its number is for `amend`."""
        with self._changed:
            entered = replace(request, number=len(self._requests))
            self._requests.append(entered)
            self._append(entered)
            return entered.number

    def amend(self, number: int, **changes: Any) -> None:
        with self._changed:
            self._requests[number] = replace(self._requests[number], **changes)
            self._append(self._requests[number])

    def sending(self, number: int, sent_bytes: int) -> None:
        """Said before these bytes go out, so that no client is ahead of it; not in the file."""
        with self._changed:
            self._requests[number] = replace(self._requests[number], sent_bytes=sent_bytes)
            self._changed.notify_all()

    def _append(self, request: HubRequest) -> None:
        if self._file:
            self._file.write(json.dumps(asdict(request)) + "\n")
            self._file.flush()
        self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            if self._file:
                self._file.close()
                self._file = None

    def wait_until(self, true: Callable[[Self], bool], timeout: float = 10.0) -> None:
        """Return when the predicate holds of this ledger; TimeoutError if it never does."""
        with self._changed:
            if not self._changed.wait_for(lambda: true(self), timeout):
                raise TimeoutError(f"not seen within {timeout} s; saw {self.summary()}")

    def summary(self) -> list[str]:
        return [f"{r.stage} {r.method} {r.target} -> {r.status}" for r in self.requests()]

    def requests(self, *stages: str) -> list[HubRequest]:
        """Those of these stages, or all, in the order of their arrival."""
        with self._changed:
            return [r for r in self._requests if not stages or r.stage in stages]

    def __len__(self) -> int:
        with self._changed:
            return len(self._requests)

    def since(self, number: int, *stages: str) -> list[HubRequest]:
        """Those that came when the ledger was `number` long already."""
        return [request for request in self.requests(*stages) if request.number >= number]

    def with_token(self, token: str) -> list[HubRequest]:
        return [r for r in self.requests() if r.token == token_hash(token)]

    def mentioning(self, text: str) -> list[HubRequest]:
        """The requests that contain the text, in a place where no token belongs."""
        return [request for request in self.requests() if request.mentions(text)]
