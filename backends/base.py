"""The contract that every backend keeps; `tests/contract/test_backends.py` holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import SecretStr

from generation.errors import BackendUnavailable, InvalidRequest
from generation.events import Event, Handle
from generation.imagefile import CheckedImage
from generation.lora_file import LoraFile
from generation.request import GenerationRequest
from generation.result import ImageFile


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job needs and its recipe must not hold.

    `owner` is whose job it is, for a backend that shares itself out fairly.
    `lora_files` are the adapters that were found, by their path in the request.
    """

    owner: str = ""
    fal_key: SecretStr | None = None
    lora_files: Mapping[str, LoraFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do now, for the page to grey out the rest with a reason.

    `problem` is None when it is ready. `fields` are the request's fields that
    it honours; `lora_scale` is the inclusive range of an adapter's scale;
    `lora_source` is how it reads one: from an address that needs no token, from
    a file on this machine, or not at all. `rationed`: it takes what is the
    page owner's, money on their key or this machine's time. `notes` say what to
    know of a field here: by its name, a word for which the page has the text
    `note.<name>.<word>`.
    """

    fields: frozenset[str]
    lora_scale: tuple[float, float]
    billed: bool
    rationed: bool = False
    previews: bool = False
    lora_source: Literal["url", "file"] | None = None
    problem: BackendUnavailable | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def check(self, request: GenerationRequest) -> None:
        """Refuse what this backend can't do, before anything is sent.

        Raises:
            BackendUnavailable: it isn't ready.
            InvalidRequest: an adapter's scale is outside its range.
        """
        if self.problem is not None:
            raise self.problem
        low, high = self.lora_scale
        for index, lora in enumerate(request.loras):
            if not low <= lora.scale <= high:
                problem = f"must be between {low:g} and {high:g} here (got {lora.scale:g})"
                raise InvalidRequest(field=f"loras.{index}.scale", problem=problem)


class CancelOutcome(StrEnum):
    """The answer to a request to cancel, in the endpoint's terms."""

    REQUESTED = "requested"
    ALREADY_COMPLETED = "already_completed"
    UNCONFIRMED = "unconfirmed"


class Backend(Protocol):
    """One way to make an image.

    A stream follows `Submitted? Queued* Running* Finished`, and raises a
    `PlaygroundError` instead of ending early. Closing a stream detaches from
    work that was submitted; only `cancel` ends it. A backend that gives no
    `Submitted` does its work inside the stream: closing it is how it stops.
    """

    name: str

    def capabilities(self, resources: Resources) -> Capabilities:
        """What this backend can do with these resources; quick, no network."""
        ...

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        """Bring what a request needs to where it is read; costs nothing and may be repeated.

        Called before `generate` if the request has adapters, which
        `resources.lora_files` then holds.

        Raises:
            AdapterError, Refused: nothing was sent.
        """
        ...

    def generate(self, request: GenerationRequest, resources: Resources) -> AsyncIterator[Event]:
        """Submit once and follow the work to its end."""
        ...

    def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        """Follow work that was submitted earlier; without `Submitted`."""
        ...

    def start(self) -> None:
        """Begin to get ready, if that takes long; returns at once.

        Called when the page starts with this backend, perhaps from another
        thread. What fails is told to the next job.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and workers; called once, at the end."""
        ...

    async def cancel(self, handle: Handle, resources: Resources) -> CancelOutcome:
        """Ask once for submitted work to end."""
        ...

    async def fetch(self, image: ImageFile) -> CheckedImage:
        """One image of a result, checked to be whole.

        Raises:
            MediaError: expired, broken or refused.
        """
        ...
