"""A backend without a network, whose every step a test decides: an endpoint on strings."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from PIL import Image

from backends.base import CancelOutcome, Capabilities, Resources
from generation.errors import JobCancelled, PlaygroundError
from generation.events import Event, Finished, Handle, Running, Submitted
from generation.imagefile import CheckedImage, check_image
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile

TICK: Final = 0.001


def _picture() -> CheckedImage:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), "teal").save(out, "PNG")
    return check_image(out.getvalue())


PICTURE: Final = _picture()


@dataclass
class Work:
    """What the endpoint knows of one prompt. Tests set these from their own thread."""

    posts: int = 0
    follows: int = 0
    cancels: int = 0
    fetches: int = 0
    paid: bool = False
    """The endpoint has it: whatever comes now, it may be charged."""
    answer: PlaygroundError | Exception | bool | None = None
    """What the post is answered with: True for a handle, an error to raise, None: not yet."""
    steps: int = 0
    done: bool = False
    failure: PlaygroundError | Exception | None = None
    """Raised by whoever follows, for as long as it is set."""
    media: PlaygroundError | None = None
    cancelling: CancelOutcome | PlaygroundError | None = CancelOutcome.REQUESTED
    """What a request to cancel is answered with; None: not yet."""
    cancelled: bool = False


@dataclass
class Puppet:
    """Works by prompt, which is the request id too."""

    billed: bool = True
    name: str = "puppet"
    keys: list[str | None] = field(default_factory=list)
    works: dict[str, Work] = field(default_factory=dict)
    started: int = 0
    closed: int = 0

    def work(self, prompt: str) -> Work:
        return self.works.setdefault(prompt, Work())

    def capabilities(self, resources: Resources) -> Capabilities:
        fields = frozenset(GenerationRequest.model_fields)
        return Capabilities(
            fields=fields, lora_scale=(0, 4), billed=self.billed, rationed=not resources.fal_key
        )

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        return resources

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        work = self.work(request.prompt)
        work.posts += 1
        self._note_key(resources)
        if self.billed:
            yield Submitted(await self._posted(work, request.prompt))
        async for event in self._follow(work, request.prompt):
            yield event

    async def _posted(self, work: Work, prompt: str) -> Handle:
        while work.answer is None:
            await asyncio.sleep(TICK)
        if isinstance(work.answer, Exception):
            raise work.answer
        work.paid = True
        return {"request_id": prompt}

    async def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        self._note_key(resources)
        prompt = handle["request_id"]
        async for event in self._follow(self.work(prompt), prompt):
            yield event

    async def _follow(self, work: Work, prompt: str) -> AsyncIterator[Event]:
        work.follows += 1
        step = 0
        while True:
            if work.failure:
                raise work.failure
            if work.cancelled:
                raise JobCancelled()
            if work.done:
                image = ImageFile(url=prompt, data=None if self.billed else PICTURE.data)
                yield Finished(GenerationResult(images=(image,), seed=7, prompt=prompt))
                return
            if step != work.steps:
                step = work.steps
                yield Running(step, 8)
            await asyncio.sleep(TICK)

    async def cancel(self, handle: Handle, _resources: Resources) -> CancelOutcome:
        work = self.work(handle["request_id"])
        work.cancels += 1
        while work.cancelling is None:
            await asyncio.sleep(TICK)
        if isinstance(work.cancelling, PlaygroundError):
            raise work.cancelling
        return work.cancelling

    async def fetch(self, image: ImageFile) -> CheckedImage:
        work = self.work(image.url)
        work.fetches += 1
        if work.media:
            raise work.media
        return PICTURE

    def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    def _note_key(self, resources: Resources) -> None:
        key = resources.fal_key
        self.keys.append(key.get_secret_value() if key else None)
