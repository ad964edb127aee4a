"""Engines for a process of their own that have no torch: it is there at once.

What a job does is its prompt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Final, NoReturn

from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.options import LocalOptions
from generation.errors import BackendUnavailable
from generation.events import Running
from generation.result import GenerationResult


class Odd(RuntimeError):
    """Pickling keeps its one argument and forgets that it needs two."""

    def __init__(self, first: str, second: object) -> None:
        super().__init__(f"{first} and {type(second).__name__}")
        self.second = second


class AcceleratorError(RuntimeError):
    """By its name torch's own."""


FAILURES: Final = {
    "odd": Odd("one", open),
    "cuda": RuntimeError("CUDA error: misaligned address"),
    "torch": AcceleratorError("gone"),
    "closed": OSError("not our pipe"),
}


class ToyEngine:
    """`options.model` is how it gets ready: `slow`, `broken`, `crashing`, else at once."""

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.warmed = 0

    def warm_up(self, tell: Tell, stop: Stop) -> None:
        tell(Running(logs=("Loading the toy",)))
        self.warmed += 1
        if self.options.model == "slow":
            time.sleep(0.4)
        if self.options.model == "broken":
            raise BackendUnavailable(backend="local", reason="the toy is broken")
        if self.options.model == "crashing":
            die(signal.SIGSEGV)

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        what, _, more = job.request.prompt.partition(" ")
        tell(Running(1, 8, preview=b"a preview"))
        if what == "die":
            die(signal.Signals[more])
        if what == "exit":
            os._exit(int(more))
        if what == "fork":
            leave_behind(float(more))
        if what == "raise":
            raise FAILURES[more]
        if what == "wait":
            wait(stop)
        if what == "deaf":
            wait(lambda: False)
        if what == "late":  # as a download's own threads may tell
            threading.Timer(0.05, tell, [Running(logs=("too late",))]).start()
        if what == "asleep":
            time.sleep(0.2)
        return GenerationResult(images=(), seed=7, prompt=self._seen(what, stop))

    def _seen(self, what: str, stop: Stop) -> str:
        if what == "ask":
            return "stop" if stop() else "go on"
        if what != "tell":
            return what
        seen = {
            "environment": dict(os.environ),
            "arguments": sys.orig_argv,
            "modules": sorted(sys.modules),
            "session": os.getsid(0),
            "warmed": self.warmed,
        }
        return json.dumps(seen)


def wait(stop: Stop) -> NoReturn:
    """Until it is stopped; not forever, whatever happens to the test."""
    for _ in range(6000):
        if stop():
            raise Stopped
        time.sleep(0.005)
    raise TimeoutError


def die(how: signal.Signals) -> NoReturn:
    """As a fault of native code, or the kernel, ends a process."""
    os.kill(os.getpid(), how)
    time.sleep(30)
    raise TimeoutError


def leave_behind(seconds: float) -> NoReturn:
    """End, while a process of one's own goes on with all that it inherited."""
    if os.fork() == 0:
        time.sleep(seconds)
    os._exit(5)


def stubborn(options: LocalOptions) -> ToyEngine:
    """Not to be ended by SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return ToyEngine(options)


def unmakeable(_options: LocalOptions) -> ToyEngine:
    raise ImportError("libcudart.so: cannot open shared object file")
