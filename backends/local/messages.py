"""What the page's process and the engine's say to each other. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.options import LocalOptions
from generation.errors import PlaygroundError
from generation.events import Running
from generation.result import GenerationResult


class Engine(Protocol):
    """What `make` builds in the engine's process: `engine.Engine`."""

    def warm_up(self, tell: Tell, stop: Stop) -> None:
        """Load what a job would have to wait for."""
        ...

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """One job from prompt to files."""
        ...


Make = Callable[[LocalOptions], Engine]
"""At the top of its module: it is pickled by its name."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The first word to the engine's process. The Hub token is in the options, and nowhere else."""

    options: LocalOptions
    make: Make


@dataclass(frozen=True, slots=True)
class Order:
    """One job to do, or without one: to get ready. Numbers rise."""

    number: int
    job: Job | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Nobody waits any more for this order."""

    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """What happens to an order meanwhile."""

    number: int
    event: Running


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word on an order. A failure crosses as one of ours: any other might not unpickle."""

    number: int
    result: GenerationResult | None = None
    failure: PlaygroundError | Stopped | None = None
