"""Who is signed in. In this process's memory alone: a browser holds an unguessable name for it.

The Hub token isn't here but with what reads adapters, `lora_registry.readers`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

LASTS: Final = 24 * 3600.0
"""Seconds that a visit lasts, whatever its token's time."""
MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class User:
    """Somebody on the Hub: `sub` never changes, `name` is what they are called now.

    `adapters_until` is when their token ends, in monotonic seconds.
    """

    sub: str
    name: str
    adapters_until: float

    @property
    def owner(self) -> str:
        """Whose their jobs are."""
        return f"user:{self.sub}"

    @property
    def lapsed(self) -> bool:
        """Whether they must sign in again for their own adapters."""
        return time.monotonic() >= self.adapters_until


class Sessions:
    """Signed-in visits by the secret in the browser's cookie. Thread-safe."""

    def __init__(self) -> None:
        self._visits: OrderedDict[str, tuple[User, float]] = OrderedDict()  # oldest first
        self._lock = threading.Lock()

    def begin(self, user: User) -> str:
        """A visit's secret."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            self._visits[secret] = (user, time.monotonic() + LASTS)
            while len(self._visits) > MOST or self._oldest_is_over():
                self._visits.popitem(last=False)
        return secret

    def user(self, secret: str) -> User | None:
        """Whose visit this is, while it lasts."""
        user, ends = self._visits.get(secret, (None, 0.0))
        return user if time.monotonic() < ends else None

    def end(self, secret: str) -> User | None:
        """Whose visit it was, if that was their last one here."""
        with self._lock:
            user, _ = self._visits.pop(secret, (None, 0.0))
            others = {other.sub for other, _ in self._visits.values()}
        return user if user is not None and user.sub not in others else None

    def _oldest_is_over(self) -> bool:
        _, ends = next(iter(self._visits.values()))
        return ends <= time.monotonic()
