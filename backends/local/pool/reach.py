"""Whether the pool is there, asked now and then in the background."""

from __future__ import annotations

import threading
import time
from typing import Final

import httpx

from generation.errors import BackendUnavailable, PoolUnreachable

FRESH: Final = 5.0  # seconds
PATIENCE: Final = 2.0  # seconds


class Reach:
    """Remembers what the pool answered last; asking never waits for it."""

    def __init__(self, address: str, fresh: float = FRESH) -> None:
        self._address = httpx.URL(address)
        self._fresh = fresh
        self._asked = -fresh  # by the monotonic clock
        self._lock = threading.Lock()
        self._problem: BackendUnavailable | None = None

    def problem(self) -> BackendUnavailable | None:
        """What was known when this was asked last; nothing, before the first answer.

        A job that comes in that moment finds out by itself.
        """
        with self._lock:
            stale = time.monotonic() - self._asked >= self._fresh
            if stale:
                self._asked = time.monotonic()
        if stale:
            threading.Thread(target=self._ask, name="pool-reach", daemon=True).start()
        return self._problem

    def _ask(self) -> None:
        reason = _trouble(self._address)
        self._problem = PoolUnreachable(backend="local", reason=reason) if reason else None


def _trouble(address: httpx.URL) -> str | None:
    """Serve's proxy lists its routes, each with its application."""
    try:
        answer = httpx.get(address.copy_with(raw_path=b"/-/routes"), timeout=PATIENCE)
        routes = answer.raise_for_status().json()
    except httpx.HTTPStatusError as exc:
        return f"it answered {exc.response.status_code}"
    except (httpx.HTTPError, ValueError) as exc:
        return str(exc) or type(exc).__name__
    if (address.path.rstrip("/") or "/") not in routes:
        return f"nothing is deployed at {address.path}"
    return None
