"""What the page and a replica say to each other over HTTP; knows nothing of Ray.

A job is one POST with an `Order` as its body. The answer is a stream of frames as
things happen: a line of JSON, then the bytes of the images that the line counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from backends.local.job import Job
from generation.errors import PlaygroundError
from generation.events import Event, Finished, Queued, Running, Submitted
from generation.lora_file import LoraFile
from generation.request import GenerationRequest
from generation.result import GenerationResult

ADAPTERS: Final = "serve_multiplexed_model_id"
"""The header by which Serve routes: the adapters' key. Absent without adapters."""
REPLICA: Final = "x-replica"
HELD: Final = "x-adapters-held"
"""Of an answer: which replica it is, and `yes` or `no`, whether it had these adapters already."""
LONGEST_LINE: Final = 2**20  # bytes


class Order(BaseModel):
    """A job on its way: whose it is (in no way that could be used elsewhere), and what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    request: GenerationRequest
    loras: tuple[tuple[LoraFile, float], ...]

    @staticmethod
    def of(job: Job, owner: str) -> Order:
        """A visitor's token opens their history: the pool only needs to tell visitors apart."""
        alias = hashlib.sha256(owner.encode()).hexdigest()[:16]
        return Order(owner=alias, request=job.request, loras=job.loras)

    @property
    def job(self) -> Job:
        return Job(self.request, self.loras)


def adapters_key(job: Job) -> str:
    """The same for the same files, in whatever order and at whatever scales; empty for none."""
    files = sorted({str(lora.local) for lora, _scale in job.loras})
    return hashlib.sha256("\n".join(files).encode()).hexdigest()[:32] if files else ""


class Incomplete(Exception):
    """The stream ended, or stopped making sense, before the job did."""


def frame(event: Event | PlaygroundError) -> bytes:
    """One event, or the error that ended the job."""
    word, body, files = _taken_apart(event)
    sizes = [None if data is None else len(data) for data in files]
    line = json.dumps([word, body, sizes], separators=(",", ":")).encode()
    return b"\n".join([line, b"".join(data for data in files if data is not None)])


def _taken_apart(event: Event | PlaygroundError) -> tuple[str, Any, Sequence[bytes | None]]:
    match event:
        case Queued(position):
            return "queued", position, ()
        case Running(step, total, logs, preview):
            return "running", [step, total, logs], (preview,)
        case Finished(result):
            images = [image.data for image in result.images]  # left out of the JSON
            return "finished", result.model_dump(mode="json"), images
        case PlaygroundError():
            return "failed", event.record(), ()
        case Submitted():
            raise ValueError("the engine gives no handle")


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """The inverse of `frame`, up to the end of the job.

    Raises:
        PlaygroundError: what the replica said that kept the job from being done.
        Incomplete: the stream broke off.
    """
    reader = _Reader(chunks)
    while True:
        line = await reader.line()
        try:
            word, body, sizes = json.loads(line)
        except ValueError as exc:
            raise Incomplete(f"it answered {line[:100]!r}") from exc
        event = _put_together(word, body, [await reader.file(size) for size in sizes])
        yield event
        if isinstance(event, Finished):
            return


def _put_together(word: str, body: Any, files: Sequence[bytes | None]) -> Event:
    match word:
        case "queued":
            return Queued(body)
        case "running":
            step, total, logs = body
            return Running(step, total, tuple(logs), *files)
        case "finished":
            result = GenerationResult.model_validate(body)
            images = zip(result.images, files, strict=True)
            filled = tuple(image.model_copy(update={"data": data}) for image, data in images)
            return Finished(result.model_copy(update={"images": filled}))
        case "failed":
            raise PlaygroundError.from_record(body)
        case _:
            raise Incomplete(f"it said {word!r}")


class _Reader:
    """Lines and counted bytes out of chunks of any size."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._left = bytearray()

    async def line(self) -> bytes:
        """Without its end."""
        while (end := self._left.find(b"\n")) < 0:
            if len(self._left) > LONGEST_LINE:
                raise Incomplete("a line without an end")
            await self._more()
        line = self._take(end + 1)
        return line[:-1]

    async def file(self, size: int | None) -> bytes | None:
        """So many bytes; None for none at all."""
        if size is None:
            return None
        while len(self._left) < size:
            await self._more()
        return self._take(size)

    async def _more(self) -> None:
        try:
            self._left += await anext(self._chunks)
        except StopAsyncIteration:
            raise Incomplete("its answer broke off") from None

    def _take(self, size: int) -> bytes:
        taken = bytes(self._left[:size])
        del self._left[:size]
        return taken
