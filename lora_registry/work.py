"""Blocking calls in threads, each made once however many wait for it.

The playground has more than one event loop (the page's, the jobs'), so what is
under way is kept as a thread's future, which any loop can wait for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Work:
    """A few threads. A call must not wait for another one of the same pool."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._under_way: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def start(self, key: Hashable, call: Callable[[], T]) -> Future[T]:
        """Begin `call`, or join the one of the same key that is still under way."""
        with self._lock:
            future: Future[T] | None = self._under_way.get(key)
            if future is None or future.done():
                future = self._under_way[key] = self._pool.submit(call)
        # Outside the lock: a call that is already done calls back at once, in this thread.
        future.add_done_callback(lambda done: self._forget(key, done))
        return future

    async def run(self, key: Hashable, call: Callable[[], T], seconds: float | None = None) -> T:
        """The result of `call`. Who stops waiting doesn't stop it for the others.

        Raises:
            TimeoutError: not done in `seconds`; it goes on all the same.
        """
        return await wait_for(self.start(key, call), seconds)

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _forget(self, key: Hashable, done: Future[Any]) -> None:
        with self._lock:
            if self._under_way.get(key) is done:
                del self._under_way[key]


async def wait_for(future: Future[T], seconds: float | None) -> T:
    """A thread's result in this event loop, within `seconds`."""
    async with asyncio.timeout(seconds):
        return await asyncio.shield(asyncio.wrap_future(future))
