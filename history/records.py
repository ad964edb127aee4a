"""The values of the journal: a job, its state, its stored images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from generation.errors import AnswerRefused, JobExpired, JobOverdue, KeyRevoked, PlaygroundError
from generation.events import Handle
from generation.request import GenerationRequest
from generation.result import GenerationResult, Receipt


class State(StrEnum):
    """Where a job stands; every step is committed before the next action.

    INTENT      written down, nothing sent
    SUBMITTING  the request may be on its way
    SUBMITTED   the backend has it, and its handle is kept
    COMPLETED   the result is kept, its image files aren't here yet
    STORED      the image files are here
    FAILED      it ended without images; the error says why
    CANCELLED   ended or dismissed by the visitor
    UNKNOWN     sent, and whether it was accepted can't be known; waits for the visitor
    """

    INTENT = "INTENT"
    SUBMITTING = "SUBMITTING"
    SUBMITTED = "SUBMITTED"
    COMPLETED = "COMPLETED"
    STORED = "STORED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself and nobody is asked anything."""
        return self in (State.STORED, State.FAILED, State.CANCELLED)


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.INTENT: frozenset({State.SUBMITTING, State.FAILED, State.CANCELLED}),
    # Straight to COMPLETED: a backend that works in the stream has no handle to keep.
    State.SUBMITTING: frozenset(
        {State.SUBMITTED, State.COMPLETED, State.FAILED, State.CANCELLED, State.UNKNOWN}
    ),
    State.SUBMITTED: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    # Never CANCELLED: what came back is paid for and is kept.
    State.COMPLETED: frozenset({State.STORED, State.FAILED}),
    State.STORED: frozenset(),
    State.FAILED: frozenset({State.SUBMITTED}),  # only where `Job.can_check_again`
    State.CANCELLED: frozenset(),
    State.UNKNOWN: frozenset({State.SUBMITTED, State.FAILED, State.CANCELLED}),
}
"""The steps that `History.advance` and `History.store` take; `rewind` is the one way back.

An image that could not be fetched (`MediaBroken`, `DiskFull`) leaves the job
COMPLETED with a note: the result is there, so there is nothing to fail. Only an
image that can never be had (`MediaExpired`, `MediaRefused`) is worth FAILED.
"""

CHECKABLE: Final = (AnswerRefused, JobExpired, JobOverdue, KeyRevoked)
"""Failures of following a job, not of the job: the endpoint may still hold its result."""


class IllegalTransition(ValueError):
    """A step that the journal never takes; the caller has a mistake, not the visitor."""

    def __init__(self, job_id: str, state: State, step: str) -> None:
        super().__init__(f"job {job_id!r} is {state}: {step} isn't possible")


class LeaseLost(IllegalTransition):
    """Another process has the job now: who gets this has nothing more to do with it."""


def sources(target: State) -> frozenset[State]:
    """The states from which `target` is reached in one step."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image file of a job.

    `file` is relative to the data folder, with forward slashes. `sha256` (hex)
    and `size_bytes` are of the file as stored, recipe included; width and
    height are pixels; `format` is Pillow's name (PNG, JPEG, WEBP).
    """

    index: int
    file: str
    sha256: str
    width: int
    height: int
    format: str
    flagged: bool
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; `StoredImage(**image.as_json())` is its inverse."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Job:
    """One click: what was asked for, where it stands, what came of it.

    `created` and `updated` are UTC. `error` says why a FAILED or UNKNOWN job is
    so, or what an unfinished one waits for. Once STORED, `result` no longer
    holds images that came as `data:` addresses: the files do.
    """

    id: str
    owner: str
    backend: str
    request: GenerationRequest
    state: State
    created: datetime
    updated: datetime
    handle: Handle | None = None
    result: GenerationResult | None = None
    error: PlaygroundError | None = None
    notices: tuple[str, ...] = ()
    receipt: Receipt | None = None
    images: tuple[StoredImage, ...] = ()
    favourite: bool = False
    cancel_requested: bool = False

    @property
    def can_check_again(self) -> bool:
        """Whether a FAILED job may still have a result on the endpoint."""
        lost = self.state is State.FAILED and isinstance(self.error, CHECKABLE)
        return lost and self.handle is not None

    @property
    def can_rewind(self) -> bool:
        """Whether the work happened here only: no handle says that a backend knows of it.

        A COMPLETED one counts: images made in this process ended with it.
        """
        started = (State.INTENT, State.SUBMITTING, State.COMPLETED)
        return self.handle is None and self.state in started

    def row(self) -> dict[str, Any]:
        """The JSON row of the Gradio API's `/history`."""
        return {
            "id": self.id,
            "created": self.created.isoformat(timespec="milliseconds"),
            "status": self.state.value,
            "backend": self.backend,
            "prompt": self.request.prompt,
            "request": request_json(self.request),
            "images": [image.as_json() for image in self.images],
            "receipt": self.receipt and self.receipt.as_json(),
            "favourite": self.favourite,
            "error": self.error and error_json(self.error),
        }


def request_json(request: GenerationRequest) -> dict[str, Any]:
    """The request by its wire names, its seed as text: a browser rounds above 2**53."""
    values = request.payload()
    return values | {"seed": str(values["seed"])} if "seed" in values else values


def error_json(error: PlaygroundError) -> dict[str, str]:
    """An error as the API tells it: `type`, `message` (cause) and `hint` (next action)."""
    return {"type": type(error).__name__, "message": error.cause, "hint": error.remedy}
