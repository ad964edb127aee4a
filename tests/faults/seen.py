"""The stand-in's ledger from the moment on at which a test began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.standins.ledger import Connection, Exchange, Ledger


class Seen(Ledger):
    """A view of a ledger that goes on, without what was in it before."""

    def __init__(self, whole: Ledger) -> None:
        self._whole = whole
        self._exchanges_before = len(whole.exchanges())
        self._connections_before = len(whole.connections())

    def exchanges(self, stage: str | None = None) -> list[Exchange]:
        return [e for e in self._whole.exchanges(stage) if e.number >= self._exchanges_before]

    def connections(self) -> list[Connection]:
        return self._whole.connections()[self._connections_before :]

    def wait_until(self, true: Callable[[Any], bool], timeout: float = 30.0) -> None:
        self._whole.wait_until(lambda _: true(self), timeout)
