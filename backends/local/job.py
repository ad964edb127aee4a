"""One job of the engine: what is asked for, and the small sums around it. Free of torch."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from generation.errors import AdapterUnavailable, InvalidRequest
from generation.events import Running
from generation.imagefile import EXTENSIONS
from generation.lora_file import LoraFile
from generation.request import MAX_SEED, GenerationRequest, OutputFormat
from generation.result import ImageFile

Stop = Callable[[], bool]
"""Asked now and then whether to end; cheap."""

Tell = Callable[[Running], None]
"""Called with what happens to a job while it is made."""


class Stopped(Exception):
    """Nobody waits for the image any more."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has its seed, and its adapters as files with their scales."""

    request: GenerationRequest
    loras: tuple[tuple[LoraFile, float], ...] = ()

    @staticmethod
    def of(request: GenerationRequest, files: Mapping[str, LoraFile]) -> Job:
        """With a seed drawn if there is none.

        Raises:
            AdapterUnavailable: an adapter of the request is no file on this machine.
        """
        loras = tuple((_here(lora.path, files), lora.scale) for lora in request.loras)
        return Job(request.with_seed(), loras)


def _here(path: str, files: Mapping[str, LoraFile]) -> LoraFile:
    found = files.get(path)
    if found is None or found.local is None:
        raise AdapterUnavailable(name=path, reason="it is no file on this machine")
    return found


@dataclass(slots=True)
class Timings:
    """Seconds by stage, in the order in which they happened."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a job: who hears of it, whether it goes on, and its times."""

    job: Job
    tell: Tell
    stop: Stop
    timings: Timings = field(default_factory=Timings)

    @property
    def request(self) -> GenerationRequest:
        return self.job.request

    def say(self, line: str) -> None:
        """A line of progress that is no step."""
        self.tell(Running(logs=(line,)))

    def go_on(self) -> None:
        """Raises `Stopped` if nobody waits any more."""
        if self.stop():
            raise Stopped


def estimated_seconds(request: GenerationRequest) -> float:
    """How long it takes an H100 at 790 TFLOP/s, by its arithmetic; elsewhere only ratios count.

    Loading a model or an adapter isn't in it.
    """
    area = request.pixels[0] * request.pixels[1] / 1024**2
    forward = 47.8 * area + 8.7 * area**2  # TFLOP: the linear layers, the attention
    image = request.num_inference_steps * forward + 10.5 * area  # decoded
    return (request.num_images * image + 4) / 790 + 0.5 * request.enable_prompt_expansion


def seeds(request: GenerationRequest) -> tuple[int, ...]:
    """Of each image: image i equals a single run with seed + i."""
    if request.seed is None:
        raise ValueError("a request must have its seed by now")
    return tuple((request.seed + index) % (MAX_SEED + 1) for index in range(request.num_images))


def rendered_size(request: GenerationRequest, multiple: int, largest: int) -> tuple[int, int]:
    """Width and height in pixels to render: the next multiples, to be cropped afterwards.

    Raises:
        InvalidRequest: a side is longer than the model's positions reach.
    """
    if max(request.pixels) > largest:
        problem = f"sides must be at most {largest:,} pixels here (got {max(request.pixels):,})"
        raise InvalidRequest(field="image_size", problem=problem)
    width, height = (-(-side // multiple) * multiple for side in request.pixels)
    return width, height


def as_files(images: Sequence[Image.Image], request: GenerationRequest) -> tuple[ImageFile, ...]:
    """The images as files in the format that was asked for, named by their own seeds."""
    pairs = zip(images, seeds(request), strict=True)
    return tuple(_file(image, seed, request.output_format) for image, seed in pairs)


def _file(image: Image.Image, seed: int, kind: OutputFormat) -> ImageFile:
    data = _encoded(image, kind)
    return ImageFile(
        width=image.width,
        height=image.height,
        content_type=f"image/{kind}",
        file_name=f"local-{seed}.{EXTENSIONS[kind.upper()]}",
        file_size=len(data),
        data=data,
    )


def _encoded(image: Image.Image, kind: OutputFormat) -> bytes:
    """Fast rather than small: PNG's level 6 takes up to five times as long as level 1."""
    file = io.BytesIO()
    if kind == "png":
        image.save(file, "PNG", compress_level=1)
    elif kind == "webp":
        image.save(file, "WEBP", quality=92, method=1)
    else:
        image.save(file, "JPEG", quality=92)
    return file.getvalue()
