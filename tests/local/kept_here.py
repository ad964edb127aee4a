"""An engine in this very process, for tests of what stands in front of it."""

from __future__ import annotations

from collections.abc import Callable

from backends.local.job import Job, Stop, Tell
from backends.local.line import Work
from backends.local.options import LocalOptions
from generation.result import GenerationResult


class KeptHere:
    """`make` builds the work when the first job is there."""

    def __init__(self, options: LocalOptions, make: Callable[[LocalOptions], Work]) -> None:
        self._options = options
        self._make = make
        self._work: Work | None = None
        self.started = 0
        self._closed = False

    def start(self) -> None:
        self.started += 1

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        if self._work is None:
            self._work = self._make(self._options)
        return self._work(job, tell, lambda: self._closed or stop())

    def close(self) -> None:
        self._closed = True
