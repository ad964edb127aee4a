"""The backends by name: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backends.base import Backend, Resources
from backends.demo import DemoBackend
from backends.hosted import HostedBackend
from backends.local.backend import LocalBackend
from backends.local.options import LocalOptions
from backends.local.pool.desk import PoolDesk
from settings import Settings


def _local(settings: Settings) -> Backend:
    """This machine's engine, or the pool that was set."""
    options = LocalOptions.of(settings)
    if settings.ray_address is None:
        return LocalBackend(options)
    pool = PoolDesk(str(settings.ray_address))
    return LocalBackend(options, pool, pool.problem)


BACKENDS: Final[dict[str, Callable[[Settings], Backend]]] = {
    "hosted": lambda settings: HostedBackend(settings.fal_key),
    "local": _local,
    "demo": lambda _settings: DemoBackend(),
}


def available(settings: Settings) -> dict[str, Backend]:
    """All backends, ready or not: the page says why one isn't."""
    return {name: make(settings) for name, make in BACKENDS.items()}


def choose(wanted: str, backends: Mapping[str, Backend]) -> str:
    """The backend to start with: the one that was set, or the first that is ready."""
    if wanted != "auto":
        return wanted
    ready = (b.name for b in backends.values() if b.capabilities(Resources()).problem is None)
    return next(ready)
