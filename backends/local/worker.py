"""The engine's process: `python -m backends.local.worker FD`, started by `process.py`.

FD is the inherited end of a socket pair. When its other end closes, the page is
gone, and this process ends at once: no orphan holds the GPU.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from backends.local.failures import caught
from backends.local.job import Job
from backends.local.messages import Ended, Engine, Halt, Order, Said, Setup
from generation.events import Running
from generation.result import GenerationResult


class Worker:
    """Carries out one order after the other in this thread, while another one listens."""

    def __init__(self, wire: Connection[Any, Any], setup: Setup) -> None:
        self._wire = wire
        self._setup = setup
        self._engine: Engine | None = None
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._halted = 0  # the newest order that nobody waits for any more
        self._sending = threading.Lock()  # a download tells its progress from threads of its own

    def serve(self) -> None:
        """Until the process ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            order = self._orders.get()
            self._send(self._carried_out(order))

    def _listen(self) -> None:
        try:
            while True:
                self._take(self._wire.recv())
        except (EOFError, OSError):
            os._exit(0)  # whatever the engine is in the middle of

    def _take(self, word: Order | Halt) -> None:
        if isinstance(word, Halt):
            self._halted = word.number
        else:
            self._orders.put(word)

    def _carried_out(self, order: Order) -> Ended:
        try:
            return Ended(order.number, result=self._do(order))
        except Exception as exc:
            return Ended(order.number, failure=caught(exc))

    def _do(self, order: Order) -> GenerationResult | None:
        def tell(event: Running) -> None:
            self._send(Said(order.number, event))

        def stop() -> bool:
            return self._halted >= order.number

        if self._engine is None:
            self._engine = self._setup.make(self._setup.options)
        if isinstance(order.job, Job):
            return self._engine.run(order.job, tell, stop)
        self._engine.warm_up(tell, stop)
        return None

    def _send(self, word: Said | Ended) -> None:
        with self._sending:
            self._wire.send(word)


def main() -> None:
    """Serve the page's process at the other end of the socket until it is gone."""
    handle = int(sys.argv[1])
    os.set_inheritable(handle, False)  # a compiler that outlives us must not hold it open
    wire: Connection[Any, Any] = Connection(handle)
    with contextlib.suppress(EOFError, ConnectionError):
        Worker(wire, wire.recv()).serve()


if __name__ == "__main__":
    main()
