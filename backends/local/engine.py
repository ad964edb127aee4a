"""The engine: one pipeline, one job at a time, in plain Python.

It knows nothing of asyncio, of queues or of the page, so that it can run in a
thread, in another process or behind a serving framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from PIL import Image

from backends.local.adapters import MergedAdapters
from backends.local.denoising import Denoised, decode, denoise, noise
from backends.local.encoding import MAX_TOKENS, Encoded, PromptEncoder
from backends.local.expansion import expand
from backends.local.fetching import find_model
from backends.local.job import Job, Stop, Stopped, Tell, Timings, as_files, rendered_size, seeds
from backends.local.loading import Loaded, forget_garbage, load_pipeline
from backends.local.options import LocalOptions
from backends.local.previews import Previews, Project, projection
from backends.local.safety import UNCHECKED, Checker, blackened, load_checker
from generation.errors import BackendUnavailable, InvalidRequest
from generation.events import Running
from generation.lora_file import LoraFile
from generation.result import AppliedLora, GenerationResult


class Adapters(Protocol):
    """Adapters merged into the transformer's weights: `MergedAdapters`."""

    def apply(self, wanted: Sequence[tuple[LoraFile, float]]) -> tuple[AppliedLora, ...]:
        """Make these, and no others, part of the weights; raises an `AdapterError` and leaves
        the base as it was."""
        ...

    def restore(self) -> None:
        """The base's own weights, bit for bit."""
        ...

    def shrink(self) -> None:
        """Leave the device's memory to others."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of those that are applied."""
        ...


def merging(loaded: Loaded) -> Adapters:
    """The adapters of a pipeline; copies the transformer's weights first, to restore them."""
    return MergedAdapters(loaded.pipe.transformer)


class Engine:
    """Loads at its first job. `load` and `adapters` are seams: where the pipeline comes from,
    and what merges adapters into its transformer."""

    def __init__(
        self,
        options: LocalOptions,
        *,
        load: Callable[..., Loaded] = load_pipeline,
        adapters: Callable[[Loaded], Adapters] = merging,
    ) -> None:
        self._options = options
        self._load = load
        self._new_adapters = adapters
        self._loaded: Loaded | None = None
        self._checker: Checker | None = None
        self._adapters: Adapters | None = None  # not before there is one to apply

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """One job from prompt to files. `tell` is called with what happens meanwhile.

        Out of memory, the pipeline takes the next smaller placement and the job
        starts anew, once.

        Raises:
            BackendUnavailable, InvalidRequest, AdapterError: the engine goes on working.
            Stopped: `stop` said so; it is asked between any two forwards.
        """
        with torch.no_grad():
            for last in (False, True):
                result = self._attempt(job, tell, stop, last)
                if result is not None:
                    return result
                tell(Running(logs=(f"Out of memory; trying again, {self._ready.placement}",)))
        raise AssertionError  # the last attempt returns or raises

    @property
    def _ready(self) -> Loaded:
        assert self._loaded is not None
        return self._loaded

    def _attempt(self, job: Job, tell: Tell, stop: Stop, last: bool) -> GenerationResult | None:
        """None if memory ran out and a smaller placement was taken."""
        try:
            return self._render(job, tell, stop)
        except torch.OutOfMemoryError as exc:
            needed = str(exc).split(". ")[0]
        # Only now is the failed attempt's memory free: the exception held its frames.
        forget_garbage()
        if self._loaded is None:
            reason = f"memory ran out while loading the model ({needed})"
            raise BackendUnavailable(backend="local", reason=reason)
        if last or not self._shrink(self._loaded):
            width, height = job.request.pixels
            problem = f"{width} × {height} needs more memory than there is ({needed})"
            raise InvalidRequest(field="image_size", problem=problem)
        forget_garbage()
        return None

    def _shrink(self, loaded: Loaded) -> bool:
        """Free some of the device's memory; False if there is nothing to spare."""
        if self._adapters is not None:
            self._adapters.shrink()
        return loaded.shrink() or self._adapters is not None

    def _render(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        timings = Timings()
        loaded = self._prepared(job, tell, stop, timings)
        size = rendered_size(job.request, loaded.multiple, loaded.largest_side)
        prompt = self._prompt(job, loaded, stop, timings)
        encoded = self._encode(prompt, timings)
        loras = self._merge(job, timings)
        latents = self._latents(job, encoded, size, tell, stop, timings)
        images = self._decode(latents, job, stop, timings)
        flags = self._flags(images, job, timings)
        images = [blackened(*pair) for pair in zip(images, flags, strict=True)] if flags else images
        with timings.stage("files"):
            files = as_files(images, job.request)
        return GenerationResult(
            images=files,
            timings=timings.seconds,
            seed=seeds(job.request)[0],
            has_nsfw_concepts=flags,
            prompt=prompt,
            loras=loras,
            warnings=self._warnings(job, encoded, size, prompt),
        )

    # -- getting ready ---------------------------------------------------------

    def _prepared(self, job: Job, tell: Tell, stop: Stop, timings: Timings) -> Loaded:
        def report(line: str) -> None:
            tell(Running(logs=(line,)))

        with timings.stage("load"):
            if job.request.enable_safety_checker and self._checker is None:
                self._checker = load_checker(self._options, report, stop)
            if self._loaded is None:
                folder = find_model(self._options.model, self._options, report, stop)
                _raise_if(stop)
                self._settle_in(self._load(folder, self._options, report))
        _raise_if(stop)
        return self._ready

    def _settle_in(self, loaded: Loaded) -> None:
        self._encoder = PromptEncoder(loaded)
        self._adapters = None
        self._project: Project = projection(loaded)
        self._loaded = loaded

    def _prompt(self, job: Job, loaded: Loaded, stop: Stop, timings: Timings) -> str:
        asked = job.request
        if not asked.enable_prompt_expansion:
            return asked.prompt
        with timings.stage("expansion"):
            return expand(loaded, asked.prompt, seeds(asked)[0], stop) or asked.prompt

    def _encode(self, prompt: str, timings: Timings) -> Encoded:
        with self._timed(timings, "encoding"):
            return self._encoder.encode(prompt)

    def _merge(self, job: Job, timings: Timings) -> tuple[AppliedLora, ...]:
        if not job.loras:
            if self._adapters is not None:
                self._adapters.restore()
            return ()
        with self._timed(timings, "adapters"):
            self._adapters = self._adapters or self._new_adapters(self._ready)
            return self._adapters.apply(job.loras)

    # -- making the images -----------------------------------------------------

    def _latents(
        self,
        job: Job,
        encoded: Encoded,
        size: tuple[int, int],
        tell: Tell,
        stop: Stop,
        timings: Timings,
    ) -> list[Any]:
        start = [noise(self._ready, seed, *size) for seed in seeds(job.request)]
        steps = job.request.num_inference_steps
        previews = Previews(self._project)
        with self._timed(timings, "denoising"):
            for seen in denoise(self._ready, start, encoded.embeds, steps, stop):
                tell(Running(seen.step, steps, preview=_preview(previews, seen)))
        return seen.latents

    def _decode(
        self, latents: Sequence[Any], job: Job, stop: Stop, timings: Timings
    ) -> list[Image.Image]:
        images = []
        with timings.stage("decoding"):
            for one in latents:
                _raise_if(stop)
                images.append(_cropped(Image.fromarray(decode(self._ready, one)), job))
        return images

    def _flags(self, images: Sequence[Image.Image], job: Job, timings: Timings) -> tuple[bool, ...]:
        """One for each image; none at all if nobody looked."""
        if not job.request.enable_safety_checker or self._checker is None:
            return ()
        with timings.stage("safety"):
            return self._checker(images)

    def _warnings(
        self, job: Job, encoded: Encoded, size: tuple[int, int], prompt: str
    ) -> tuple[str, ...]:
        asked, found = job.request, []
        if asked.enable_safety_checker and self._checker is None:
            found.append(UNCHECKED)
        if asked.enable_prompt_expansion and prompt == asked.prompt:
            found.append("Prompt expansion wrote nothing; the prompt was used as it is.")
        if encoded.left_out:
            found.append(
                f"The model reads {MAX_TOKENS} tokens; the prompt's last {encoded.left_out} "
                "were left out."
            )
        if size != asked.pixels:
            found.append(f"Made at {size[0]} × {size[1]} pixels and cropped to the size asked for.")
        return (*found, *(self._adapters.warnings if job.loras and self._adapters else ()))

    @contextmanager
    def _timed(self, timings: Timings, name: str) -> Iterator[None]:
        with timings.stage(name):
            yield
            self._ready.settle()


def _preview(previews: Previews, seen: Denoised) -> bytes | None:
    """Of the first image, as it will be rather than as it is: still full of noise."""
    return previews.take(seen.estimates[0])


def _cropped(image: Image.Image, job: Job) -> Image.Image:
    """The middle of it, at the size that was asked for."""
    width, height = job.request.pixels
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _raise_if(stop: Stop) -> None:
    if stop():
        raise Stopped
