"""A job's adapters on their way to the backend, before anything is sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from generation.lora_file import LoraFile
from history.records import Job


class Adapters(Protocol):
    """Where a request's adapters are found: `lora_registry.registry.Registry`."""

    async def hand_over(
        self,
        path: str,
        owner: str,
        *,
        as_file: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> LoraFile:
        """An adapter as an address or, if asked for, a file."""
        ...


@dataclass(frozen=True, slots=True)
class Fetching:
    """An adapter on its way to the backend; `percent` where the size is known."""

    name: str
    percent: int | None = None


class Progress:
    """Takes bytes from any thread, and shows each whole percent once, on the loop it began on."""

    def __init__(self, name: str, show: Callable[[Fetching], object]) -> None:
        self.size = 0
        """Bytes that came so far."""
        self._name = name
        self._show = show
        self._percent = -1
        self._over = False
        self._loop = asyncio.get_running_loop()

    def __call__(self, done: int, total: int | None) -> None:
        self.size = max(self.size, done)
        percent = 100 * done // total if total else -1
        if percent > self._percent:
            self._percent = percent
            self._loop.call_soon_threadsafe(self._tell, Fetching(self._name, percent))

    def end(self) -> None:
        """Show nothing from now on: a thread's word may come late."""
        self._over = True

    def _tell(self, so_far: Fetching) -> None:
        if not self._over:
            self._show(so_far)


async def hand_over(
    adapters: Adapters,
    job: Job,
    *,
    as_file: bool,
    show: Callable[[Fetching], object],
    done: Callable[[int, float], None],
) -> dict[str, LoraFile]:
    """Bring a job's adapters, one after the other; by their path in the request.

    `show` is told how far it is, on this loop; `done` of each how many bytes came, and since
    when (monotonic).

    Raises:
        AdapterError: one of them can't be had.
    """
    files = {}
    for lora in job.request.loras:
        show(Fetching(lora.path))
        began, came = time.monotonic(), Progress(lora.path, show)
        try:
            files[lora.path] = await adapters.hand_over(
                lora.path, job.owner, as_file=as_file, progress=came
            )
        finally:
            came.end()
        done(came.size, began)
    return files
