"""Engines for replicas on a machine without a GPU. What needs torch is imported in the child."""

from __future__ import annotations

import threading
import time
from typing import Final

from backends.local.desk import KeptEngine
from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.messages import Engine
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from generation.events import Running
from generation.result import GenerationResult, ImageFile
from tests.local.toy_engine import ToyEngine

CPU: Final = LocalOptions(model="tiny", device="cpu")
PREVIEW: Final = b"\xff\xd8 a preview of some kilobytes" * 100
PICTURE: Final = b"\x89PNG a picture of a megabyte" * 40_000


def tiny() -> KeptEngine:
    """The real one with a tiny model, in a process of its own."""
    return EngineProcess(CPU, _tiny)


def _tiny(options: LocalOptions) -> Engine:
    from tests.local.tiny_engine import tiny_engine

    return tiny_engine(options)


def toy() -> KeptEngine:
    """One that does what its prompt says, dying included."""
    return EngineProcess(CPU, ToyEngine)


class Sleeper:
    """A GPU by its time alone: a job takes `seconds`, tells of eight steps, gives a megabyte."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._closed = threading.Event()

    def start(self) -> None:
        """It is ready."""

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """Sleeps to points in time, so that what happens between them takes none away."""
        began = time.monotonic()
        for step in range(1, 9):
            if self._closed.wait(max(0.0, began + self._seconds * step / 8 - time.monotonic())):
                raise Stopped
            if stop():
                raise Stopped
            tell(Running(step, 8, preview=PREVIEW))
        image = ImageFile(width=1024, height=1024, content_type="image/png", data=PICTURE)
        return GenerationResult(images=(image,), seed=job.request.seed or 0)

    def close(self) -> None:
        """A job in it ends as `Stopped`."""
        self._closed.set()


def second() -> KeptEngine:
    """A GPU that takes one second for an image."""
    return Sleeper(1.0)


def tenth() -> KeptEngine:
    """One that takes a tenth."""
    return Sleeper(0.1)
