"""What happens to a request, in the vendor's own words.

Grammar of every backend's stream: `Submitted? Queued* Running* Finished`. A
failure is raised as a `PlaygroundError`; there is no event for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from generation.result import GenerationResult

Handle = Mapping[str, str]
"""What a backend needs to find its work again, as plain JSON."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The backend took the work; `handle` must be kept before anything else happens."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting; `position` counts the jobs in front (0 = next), None if not told."""

    position: int | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """Being made. Steps count finished forwards; `preview` is a small JPEG or WebP."""

    step: int | None = None
    total_steps: int | None = None
    logs: tuple[str, ...] = ()
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream."""

    result: GenerationResult


Event = Submitted | Queued | Running | Finished
