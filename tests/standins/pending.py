"""Faults still to strike, for any stand-in: filled by tests, emptied by the stand-in's thread."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Counted(Protocol):
    """What a table of faults must know of one: how often it strikes, None for always."""

    @property
    def times(self) -> int | None: ...


F = TypeVar("F", bound=Counted)


class Pending(Generic[F]):
    """In order; those for always come after the counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[F, int | None]] = []

    def inject(self, *faults: F) -> None:
        with self._lock:
            self._pending += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[F]:
        with self._lock:
            return [fault for fault, _ in self._pending]

    def next(self, strikes: Callable[[F], bool]) -> F | None:
        """The first that strikes, used once more."""
        with self._lock:
            fitting = [
                (left is None, index)
                for index, (fault, left) in enumerate(self._pending)
                if strikes(fault)
            ]
            return self._use(min(fitting)[1]) if fitting else None

    def _use(self, index: int) -> F:
        fault, left = self._pending[index]
        if left is not None and left <= 1:
            del self._pending[index]
        elif left is not None:
            self._pending[index] = (fault, left - 1)
        return fault
