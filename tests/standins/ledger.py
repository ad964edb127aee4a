"""What a stand-in saw, in order: the other side's account of every exchange.

Tests compare it with our own records, so an entry says how far the exchange really got, and
each change is also appended to a JSON-lines file that outlives the stand-in.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from .wire import Headers

STORED_BODY = 1024 * 1024
"""Body bytes kept in a row of the file; the entry in memory has them all."""


@dataclass(frozen=True)
class Connection:
    """A client reached a listener: `tls` (by SNI), `plain`, or `tunnel` (by CONNECT)."""

    listener: str
    host: str
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Exchange:
    """One request and what became of it."""

    stage: str
    method: str
    host: str
    path: str
    """The request's target, its query included."""
    headers: Headers
    number: int = 0
    time: float = field(default_factory=time.time)
    body: bytes = b""
    accepted_bytes: int = 0
    """Body bytes that the stand-in read."""
    received: bool = False
    """The whole request was read."""
    accepted: bool = False
    """The request was carried out: for a submit, a job exists and would be charged."""
    request_id: str | None = None
    fault: str | None = None
    status: int | None = None
    """The status of the answer; None where no answer was tried."""
    answered: bool = False
    """The answer was written to the end while the client was still there."""

    def mentions(self, text: str) -> bool:
        """Whether the text stands anywhere in the request."""
        places = [self.host, self.path, *(f"{k}: {v}" for k, v in self.headers)]
        return any(text in place for place in places) or text.encode() in self.body

    def to_row(self) -> dict[str, Any]:
        kept = self.body[:STORED_BODY]
        return asdict(self) | {"kind": "exchange", "body": base64.b64encode(kept).decode()}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        values = {key: value for key, value in row.items() if key != "kind"}
        headers = tuple((k, v) for k, v in row["headers"])
        return cls(**values | {"body": base64.b64decode(row["body"]), "headers": headers})


class Ledger:
    """Written by the stand-in's thread, read by tests. Entries are values, never changed."""

    def __init__(self, path: Path | None = None) -> None:
        self._changed = threading.Condition()
        self._exchanges: list[Exchange] = []
        self._connections: list[Connection] = []
        self._file = path.open("a", encoding="utf-8") if path else None

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]]) -> Self:
        """Rebuild from rows; of several about one exchange the last wins."""
        ledger = cls()
        latest: dict[int, Exchange] = {}
        for row in rows:
            if row["kind"] == "exchange":
                latest[row["number"]] = Exchange.from_row(row)
            else:
                ledger._connections.append(Connection(row["listener"], row["host"], row["time"]))
        ledger._exchanges = [latest[number] for number in sorted(latest)]
        return ledger

    @classmethod
    def read(cls, path: Path) -> Self:
        """The ledger of a stand-in that has ended, from its JSON-lines file."""
        return cls.from_rows(json.loads(line) for line in path.read_text("utf-8").splitlines())

    def rows(self) -> list[dict[str, Any]]:
        connections = [asdict(c) | {"kind": "connection"} for c in self.connections()]
        return connections + [exchange.to_row() for exchange in self.exchanges()]

    def connected(self, listener: str, host: str) -> None:
        with self._changed:
            self._connections.append(Connection(listener, host))
            self._append(asdict(self._connections[-1]) | {"kind": "connection"})

    def open(self, exchange: Exchange) -> int:
        """Enter a request that has begun to arrive; its number is for `amend`."""
        with self._changed:
            entered = replace(exchange, number=len(self._exchanges))
            self._exchanges.append(entered)
            self._append(entered.to_row())
            return entered.number

    def amend(self, number: int, **changes: Any) -> None:
        with self._changed:
            self._exchanges[number] = replace(self._exchanges[number], **changes)
            self._append(self._exchanges[number].to_row())

    def _append(self, row: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(row) + "\n")
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
        return [f"{e.stage} {e.method} {e.path} -> {e.status}" for e in self.exchanges()]

    def exchanges(self, stage: str | None = None) -> list[Exchange]:
        with self._changed:
            return [e for e in self._exchanges if stage is None or e.stage == stage]

    def connections(self) -> list[Connection]:
        with self._changed:
            return list(self._connections)

    def posts(self) -> list[Exchange]:
        """Every submit that began to arrive, answered or not."""
        return self.exchanges("submit")

    def submitted_bodies(self) -> list[Any]:
        """The JSON of every submit that arrived whole."""
        return [json.loads(e.body) for e in self.posts() if e.received]

    def paid_jobs(self) -> list[str]:
        """Ids of the jobs that were accepted: each would be charged, whatever came after."""
        return [e.request_id for e in self.posts() if e.accepted and e.request_id]

    def cancels(self) -> list[Exchange]:
        return self.exchanges("cancel")

    def uploads(self) -> list[Exchange]:
        """The requests that carried a file's bytes."""
        return self.exchanges("upload")

    def connections_to(self, host: str) -> list[Connection]:
        """Connections opened to a host, through the tunnel or by its name in TLS."""
        return [c for c in self.connections() if c.host == host]

    def mentioning(self, text: str) -> list[Exchange]:
        """The requests that contain the text in their target, a header or the body."""
        return [e for e in self.exchanges() if e.mentions(text)]
