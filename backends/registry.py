"""The backends by name: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from backends.base import Backend, Resources
from backends.demo import DemoBackend
from backends.hosted import HostedBackend
from generation.errors import BackendUnavailable
from settings import Settings

BACKENDS: Final[dict[str, Callable[[Settings], Backend]]] = {
    "hosted": lambda settings: HostedBackend(settings.fal_key),
    "demo": lambda _settings: DemoBackend(),
}


def available(settings: Settings) -> dict[str, Backend]:
    """All backends, ready or not: the page says why one isn't."""
    return {name: make(settings) for name, make in BACKENDS.items()}


def choose(settings: Settings, backends: dict[str, Backend]) -> str:
    """The backend to start with: the one that was set, else the first that is ready.

    Raises:
        BackendUnavailable: the one that was set isn't part of this version.
    """
    if settings.backend == "auto":
        return _first_ready(backends.values())
    if settings.backend not in backends:
        raise BackendUnavailable(backend=settings.backend, reason="this version has none")
    return settings.backend


def _first_ready(backends: Iterable[Backend]) -> str:
    ready = (b.name for b in backends if b.capabilities(Resources()).problem is None)
    return next(ready)
