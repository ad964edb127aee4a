"""The stand-in's queue: jobs whose state follows from a clock that tests can stop."""

import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .fault_table import Fault

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
SEED_FLOOR = 2**53
"""fal's own seeds exceed what a JavaScript number holds exactly; so do ours, always."""


class Clock:
    """Seconds that pass by themselves, stand still, or jump."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset = -time.monotonic()
        self._held_at: float | None = None

    def now(self) -> float:
        with self._lock:
            return time.monotonic() + self._offset if self._held_at is None else self._held_at

    def hold(self) -> None:
        now = self.now()
        with self._lock:
            self._held_at = now

    def release(self) -> None:
        with self._lock:
            if self._held_at is not None:
                self._offset = self._held_at - time.monotonic()
                self._held_at = None

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._offset += seconds
            if self._held_at is not None:
                self._held_at += seconds


@dataclass(frozen=True)
class Timing:
    """How long a job takes: `queue_length` places passed in `queue_seconds`, then the work."""

    queue_seconds: float = 0.0
    queue_length: int = 3
    job_seconds: float = 0.05


@dataclass
class Job:
    """One accepted request. `arguments` are checked and complete, or as sent if `invalid`."""

    arguments: Mapping[str, Any]
    timing: Timing
    accepted_at: float
    faults: tuple[Fault, ...] = ()
    invalid: tuple[dict[str, Any], ...] = ()
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    accepted_wall: float = field(default_factory=time.time)
    cancelled: bool = False
    finished: bool = False
    polls: int = 0
    fetches: int = 0

    @property
    def seed(self) -> int:
        """The seed asked for, else one above 2**53 and odd: rounding it through a double shows."""
        given = self.arguments.get("seed")
        if given is not None:
            return int(given)
        return random.Random(self.request_id).randrange(SEED_FLOOR, 2**64) | 1

    def fault(self, kind: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.kind == kind), None)

    def status(self, now: float) -> str:
        elapsed = now - self.accepted_at
        if self.cancelled or self.finished:
            return COMPLETED
        if elapsed < self.timing.queue_seconds:
            return IN_QUEUE
        done = elapsed >= self.timing.queue_seconds + self.timing.job_seconds
        return COMPLETED if done and not self.fault("never_completes") else IN_PROGRESS

    def position(self, now: float) -> int:
        """0-based: the next to run is at 0."""
        if self.fault("rising_position"):
            return self.polls
        share = (now - self.accepted_at) / self.timing.queue_seconds
        return max(0, self.timing.queue_length - 1 - int(share * self.timing.queue_length))

    def logs(self, now: float) -> list[dict[str, str]]:
        """One line per inference step taken so far."""
        started = self.accepted_at + self.timing.queue_seconds
        steps = int(self.arguments.get("num_inference_steps", 1))
        share = 1.0 if self.status(now) == COMPLETED else (now - started) / self._work_seconds
        return [self._log(step, steps) for step in range(min(steps, int(share * steps)) + 1)]

    @property
    def _work_seconds(self) -> float:
        return self.timing.job_seconds or 1.0

    def _log(self, step: int, steps: int) -> dict[str, str]:
        after = self.timing.queue_seconds + self.timing.job_seconds * step / steps
        moment = datetime.fromtimestamp(self.accepted_wall + after, UTC)
        message = f"step {step}/{steps}" if step else "started"
        stamp = moment.isoformat().replace("+00:00", "Z")
        return {"message": message, "level": "INFO", "source": "USER", "timestamp": stamp}


class JobBook:
    """All jobs by request id, on one clock."""

    def __init__(self, timing: Timing) -> None:
        self.clock = Clock()
        self.timing = timing
        self._jobs: dict[str, Job] = {}

    def accept(self, job: Job) -> Job:
        self._jobs[job.request_id] = job
        return job

    def find(self, request_id: str | None) -> Job | None:
        return self._jobs.get(request_id or "")

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def status(self, job: Job) -> str:
        return job.status(self.clock.now())

    def finish(self, request_id: str) -> None:
        """Complete a job now, whatever its timing; KeyError if there is none."""
        self._jobs[request_id].finished = True

    def blight(self, request_id: str, fault: Fault) -> None:
        """Give an accepted job a fault; KeyError if there is none."""
        self._jobs[request_id].faults += (fault,)
