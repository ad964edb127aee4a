"""The engine in a process of its own, seen from the page's. Nothing here imports torch.

A fault of the GPU, a segmentation fault or the kernel's out-of-memory killer
ends that process alone: its job fails, and the next one starts it anew. Both
speak `messages.py` over a socket pair that has no name and no address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from backends.local.failures import as_ours, crash
from backends.local.job import Job, Stop, Stopped, Tell
from backends.local.messages import Ended, Engine, Halt, Make, Order, Said, Setup
from backends.local.options import LocalOptions
from generation.errors import EngineCrashed, PlaygroundError
from generation.events import Running
from generation.result import GenerationResult

log = logging.getLogger("playground.local")

FAREWELL: Final = 20.0  # seconds for a forward, or the reading of a file, that can't be stopped
GRACE: Final = 3.0  # seconds from SIGTERM to SIGKILL
TICK: Final = 0.02  # seconds between two looks at whether a job is to stop: less than a step

ROOT: Final = Path(__file__).resolve().parents[2]
# What Python, torch, CUDA and downloads need; by name, since the rest may hold keys.
PASSED: Final = frozenset(
    "PATH HOME USER LOGNAME LANG TMPDIR LD_LIBRARY_PATH VIRTUAL_ENV CC CXX HF_HOME XDG_CACHE_HOME "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "
    "http_proxy https_proxy all_proxy no_proxy".split()
)
PASSED_FAMILIES: Final = (
    "PYTHON", "LC_", "OMP_", "MKL_", "KMP_", "TORCH", "PYTORCH_", "TRITON_", "CUDA_", "NVIDIA_",
    "HIP_", "ROCR_", "HSA_", "HF_HUB_", "HF_XET_",
)  # fmt: skip
SECRETS: Final = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def real_engine(options: LocalOptions) -> Engine:
    """`engine.Engine`; here begins what needs torch, in the engine's process alone."""
    from backends.local.engine import Engine

    return Engine(options)


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    wire: Connection[Any, Any]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> int:
        """By SIGTERM, then by SIGKILL, within twice the grace; its status."""
        self.process.terminate()
        try:
            return self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel itself may hold it
            self.process.wait(GRACE)
        return -signal.SIGKILL


class EngineProcess:
    """Runs jobs on an engine that `make` builds in another process; one at a time.

    That process gets ready (loads, compiles) in a thread's time, before its first
    job or at `start`, whichever comes first; whoever gives up waiting for it
    doesn't stop it. `farewell` is how many seconds a job may take to end once it
    is stopped: then its process is killed.
    """

    def __init__(
        self, options: LocalOptions, make: Make = real_engine, *, farewell: float = FAREWELL
    ) -> None:
        self._setup = Setup(options, make)
        self._farewell = farewell
        self._child: _Child | None = None
        self._turn = threading.Lock()  # of whoever speaks with the child
        self._number = 0
        self._latest = Running()  # what getting ready came to
        self._trouble: PlaygroundError | None = None  # why it didn't, until a job was told
        self._closed = False

    def start(self) -> None:
        """Begin to get ready, unless it is or does already; returns at once."""
        if self._closed or self._ready or not self._turn.acquire(blocking=False):
            return
        self._latest = Running()
        threading.Thread(target=self._get_ready, name="local-warm-up", daemon=True).start()

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """`Engine.run`, elsewhere.

        Raises:
            EngineCrashed: the process ended; the next job starts it anew.
            EngineFailed: anything that isn't an error for people.
            PlaygroundError, Stopped: as the engine raised them.
        """
        self.start()
        with self._my_turn(tell, stop):
            if self._trouble is not None:
                tell(Running(logs=(f"Getting ready failed, trying again: {self._trouble.cause}",)))
                self._trouble = None
            result = self._carry_out(job, tell, stop)
            assert result is not None
            return result

    def close(self) -> None:
        """End the process, whatever it does, within seconds; a job in it ends as `Stopped`."""
        self._closed = True
        if (child := self._child) is not None:
            child.end()
        if self._turn.acquire(timeout=GRACE):
            self._dismiss()
            self._turn.release()

    # -- getting ready ---------------------------------------------------------

    @property
    def _ready(self) -> bool:
        return self._child is not None and self._child.alive

    def _get_ready(self) -> None:
        """In a thread of its own, whose turn it is already."""
        try:
            self._trouble = None
            self._carry_out(None, self._note, lambda: self._closed)
        except Exception as exc:  # whatever it is, the next job is told
            if not isinstance(failure := as_ours(exc), Stopped):
                log.warning("The local engine didn't get ready: %s", failure.cause)
                self._trouble = failure
        finally:
            self._turn.release()

    def _note(self, event: Running) -> None:
        self._latest = event

    @contextlib.contextmanager
    def _my_turn(self, tell: Tell, stop: Stop) -> Iterator[None]:
        """Once it is ready, which is told; raises `Stopped` if nobody waits for that."""
        told = Running()
        while not self._turn.acquire(timeout=TICK):
            if stop():
                raise Stopped
            if self._latest is not told and self._latest.logs:
                told = self._latest
                tell(told)
        try:
            yield
        finally:
            self._turn.release()

    # -- one order -------------------------------------------------------------

    def _carry_out(self, job: Job | None, tell: Tell, stop: Stop) -> GenerationResult | None:
        child = self._living(tell)
        self._number += 1
        with self._lost_is_told(child):
            child.wire.send(Order(self._number, job))
        ended = self._heard_out(child, tell, stop)
        if isinstance(ended.failure, EngineCrashed):
            self._dismiss()  # it lives, and no job can succeed in it
        if ended.failure is not None:
            raise ended.failure
        return ended.result

    def _heard_out(self, child: _Child, tell: Tell, stop: Stop) -> Ended:
        deadline: float | None = None
        while True:
            word = self._next_word(child)
            if isinstance(word, Ended) and word.number == self._number:
                return word
            if isinstance(word, Said) and word.number == self._number:
                tell(word.event)
            if deadline is None and stop():
                deadline = time.monotonic() + self._farewell
                with self._lost_is_told(child):
                    child.wire.send(Halt(self._number))
            if deadline is not None and time.monotonic() > deadline:
                self._dismiss()
                raise Stopped

    def _next_word(self, child: _Child) -> Said | Ended | None:
        """None if there was none for a tick."""
        with self._lost_is_told(child):
            if child.wire.poll(TICK):
                word: Said | Ended = child.wire.recv()
                return word
            if not child.alive and not child.wire.poll():
                raise EOFError  # while one of its own children still holds the socket
            return None

    @contextlib.contextmanager
    def _lost_is_told(self, child: _Child) -> Iterator[None]:
        """A broken wire as what became of the process behind it."""
        try:
            yield
        except (EOFError, OSError):
            status = self._status(child)
            self._dismiss()
            raise (Stopped if self._closed else crash(status)) from None

    def _status(self, child: _Child) -> int:
        """Of a process that is ending: its wire is closed."""
        try:
            return child.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return child.end()

    # -- the process -----------------------------------------------------------

    def _living(self, tell: Tell) -> _Child:
        """The process, started if there is none: Python and torch take seconds."""
        if self._closed:
            raise Stopped
        if self._child is not None and self._child.alive:
            return self._child
        self._dismiss()
        tell(Running(logs=("Starting PyTorch",)))
        child = self._child = _started()
        if self._closed:  # perhaps a moment ago, when there was no process to end
            self._dismiss()
            raise Stopped
        with self._lost_is_told(child):
            child.wire.send(self._setup)
        return child

    def _dismiss(self) -> None:
        if (child := self._child) is None:
            return
        child.end()
        child.wire.close()
        self._child = None


def _started() -> _Child:
    """With its errors on our stderr, and out of reach of the terminal's Ctrl+C: we end it."""
    ours, theirs = Pipe()
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "backends.local.worker"]
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            env=environment(os.environ),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
        )
    return _Child(process, ours)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the engine's process gets to see of our environment: no key and no token."""
    passed = {
        name: value
        for name, value in ours.items()
        if (name in PASSED or name.startswith(PASSED_FAMILIES))
        and not any(secret in name for secret in SECRETS)
    }
    paths = [str(ROOT), *filter(None, [ours.get("PYTHONPATH")])]
    return passed | {"PYTHONPATH": os.pathsep.join(paths)}
