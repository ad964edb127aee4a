"""The demo backend: pictures without key, network or model, and every state of the page."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from backends.base import CancelOutcome, Capabilities, Resources
from backends.demo.drawing import Picture, Stop, compose, draw, encode
from backends.demo.prompt import expand
from generation.errors import InvalidRequest, MediaExpired
from generation.events import Event, Finished, Handle, Queued, Running
from generation.imagefile import EXTENSIONS, CheckedImage, check_image
from generation.request import MAX_SEED, GenerationRequest
from generation.result import AppliedLora, GenerationResult, ImageFile

IGNORED: Final = ("sync_mode", "enable_safety_checker", "acceleration")
_LONGEST_SIDE: Final = {"png": 2**31 - 1, "jpeg": 65_500, "webp": 16_383}  # what Pillow writes
_PREVIEW: Final = 256  # pixels of its longer side


class DemoBackend:
    """Draws instead of generating: deterministic, instant, and marked on the image.

    Image i of a request uses seed + i, so it equals a single run with that
    seed. `pace` is how long each stage shows, in seconds; drawing counts.
    """

    name = "demo"

    def __init__(self, pace: float = 0.12) -> None:
        self._pace = pace

    def capabilities(self, resources: Resources) -> Capabilities:
        """Always ready, never billed."""
        fields = frozenset(GenerationRequest.model_fields) - frozenset(IGNORED)
        return Capabilities(fields=fields, lora_scale=(-4, 4), billed=False, previews=True)

    async def prepare(self, request: GenerationRequest, resources: Resources) -> Resources:
        """Nothing: an adapter's path and scale are all that the drawing takes from it."""
        return resources

    async def generate(
        self, request: GenerationRequest, resources: Resources
    ) -> AsyncIterator[Event]:
        """Queue, draw the first image step by step as previews, then all at full size.

        Closing the stream ends the drawing.

        Raises:
            InvalidRequest: the file format can't hold an image that long.
        """
        _check_format(request)
        request = request.with_seed()
        stop = threading.Event()
        try:
            for position in (2, 1, 0):
                yield Queued(position)
                await asyncio.sleep(self._pace)
            pictures = await asyncio.to_thread(_compose, request)
            for step in range(1, request.num_inference_steps + 1):
                preview = await self._paced(_preview, pictures[0], step, stop.is_set)
                yield Running(step, request.num_inference_steps, preview=preview)
            yield Finished(await asyncio.to_thread(_result, request, pictures, stop.is_set))
        finally:
            stop.set()

    def resume(self, handle: Handle, resources: Resources) -> AsyncIterator[Event]:
        """Never: a stream without `Submitted` leaves nothing to resume."""
        raise RuntimeError(f"the demo gives no handle, so {handle!r} isn't its own")

    async def cancel(self, handle: Handle, resources: Resources) -> CancelOutcome:
        """Nothing to cancel: closing the stream is how it stops."""
        return CancelOutcome.UNCONFIRMED

    async def fetch(self, image: ImageFile) -> CheckedImage:
        """The bytes in the result itself.

        Raises:
            MediaExpired: the result is from before a restart, and came back without them.
        """
        if image.data is None:
            raise MediaExpired
        return await asyncio.to_thread(check_image, image.data)

    def start(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Nothing is held between two streams."""

    async def _paced(self, work: Callable[..., bytes], *arguments: object) -> bytes:
        """Work in a thread, taking one stage's time at least."""
        done, _ = await asyncio.gather(
            asyncio.to_thread(work, *arguments), asyncio.sleep(self._pace)
        )
        return done


def _check_format(request: GenerationRequest) -> None:
    longest = _LONGEST_SIDE[request.output_format]
    if max(request.pixels) > longest:
        problem = f"{request.output_format} holds at most {longest:,} pixels a side; choose png"
        raise InvalidRequest(field="output_format", problem=problem)


def _compose(request: GenerationRequest) -> list[Picture]:
    prompt = _drawn_prompt(request)
    first = _seed(request)
    seeds = ((first + index) % (MAX_SEED + 1) for index in range(request.num_images))
    return [compose(request, prompt, seed) for seed in seeds]


def _drawn_prompt(request: GenerationRequest) -> str:
    return expand(request.prompt) if request.enable_prompt_expansion else request.prompt


def _seed(request: GenerationRequest) -> int:
    if request.seed is None:
        raise ValueError("a request must have its seed by now")
    return request.seed


def _preview(picture: Picture, step: int, stop: Stop) -> bytes:
    """A small JPEG of the picture as far as it is after `step`."""
    shrink = min(1.0, _PREVIEW / max(picture.size))
    width, height = (max(1, round(side * shrink)) for side in picture.size)
    return encode(draw(picture, (width, height), step, stop), "jpeg", quality=80)


def _result(request: GenerationRequest, pictures: list[Picture], stop: Stop) -> GenerationResult:
    started = time.perf_counter()
    images = tuple(_image_file(request, picture, stop) for picture in pictures)
    return GenerationResult(
        images=images,
        timings={"inference": time.perf_counter() - started},
        seed=_seed(request),
        has_nsfw_concepts=(False,) * len(images),
        prompt=_drawn_prompt(request),
        loras=tuple(
            AppliedLora(path=lora.path, scale=lora.scale, applied=True) for lora in request.loras
        ),
        ignored=tuple(name for name in IGNORED if _asked_for(request, name)),
    )


def _image_file(request: GenerationRequest, picture: Picture, stop: Stop) -> ImageFile:
    image = draw(picture, picture.size, request.num_inference_steps, stop)
    data = encode(image, request.output_format)
    return ImageFile(
        width=image.width,
        height=image.height,
        content_type=f"image/{request.output_format}",
        file_name=f"demo-{picture.seed}.{EXTENSIONS[request.output_format.upper()]}",
        file_size=len(data),
        data=data,
    )


def _asked_for(request: GenerationRequest, field: str) -> bool:
    """Whether a field was set to something else than its default."""
    return bool(getattr(request, field) != GenerationRequest.model_fields[field].default)
