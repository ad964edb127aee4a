"""The engine: one pipeline, one job at a time, in plain Python.

It knows nothing of asyncio, of queues or of the page, so that it can run in a
thread, in another process or behind a serving framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from PIL import Image

from backends.local.acceleration import Modes
from backends.local.adapters import MergedAdapters
from backends.local.denoising import decode, denoise, noise
from backends.local.encoding import MAX_TOKENS, Encoded, PromptEncoder
from backends.local.expansion import expand
from backends.local.fetching import find_model
from backends.local.job import Job, Run, Stop, Tell, as_files, rendered_size, seeds
from backends.local.loading import Loaded, forget_garbage, load_pipeline
from backends.local.options import LocalOptions
from backends.local.previews import Previews, Project, projection
from backends.local.safety import UNCHECKED, Checker, blackened, load_checker
from generation.errors import BackendUnavailable, InvalidRequest
from generation.events import Running
from generation.lora_file import LoraFile
from generation.request import GenerationRequest
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

    def take_written(self) -> frozenset[str]:
        """The parameters that were written since this was last called."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of those that are applied."""
        ...


def merging(loaded: Loaded) -> Adapters:
    """The adapters of a pipeline; copies the transformer's weights first, to restore them."""
    return MergedAdapters(loaded.pipe.transformer)


def accelerating(loaded: Loaded, options: LocalOptions) -> Modes:
    """The modes of a pipeline's transformer."""
    return Modes(loaded, options.data)


class Engine:
    """Loads at its first job, or at `warm_up`. `load`, `adapters` and `modes` are seams: where the
    pipeline comes from, what merges adapters into its transformer, and what accelerates it."""

    def __init__(
        self,
        options: LocalOptions,
        *,
        load: Callable[..., Loaded] = load_pipeline,
        adapters: Callable[[Loaded], Adapters] = merging,
        modes: Callable[[Loaded, LocalOptions], Modes] = accelerating,
    ) -> None:
        self._options = options
        self._load = load
        self._new_adapters = adapters
        self._new_modes = modes
        self._loaded: Loaded | None = None
        self._checker: Checker | None = None
        self._modes: Modes | None = None
        self._adapters: Adapters | None = None  # not before there is one to apply

    def warm_up(self, tell: Tell, stop: Stop) -> None:
        """Load and compile what a job with the request's own defaults needs, before there is one.

        Raises:
            BackendUnavailable: a job will raise it again, or have more luck.
            Stopped: `stop` said so.
        """
        with torch.no_grad():
            self._prepare(Run(Job(GenerationRequest(prompt="warm-up")), tell, stop))

    def run(self, job: Job, tell: Tell, stop: Stop) -> GenerationResult:
        """One job from prompt to files. `tell` is called with what happens meanwhile.

        Out of memory, the pipeline takes the next smaller placement and the job
        starts anew, once.

        Raises:
            BackendUnavailable, InvalidRequest, AdapterError: the engine goes on working.
            Stopped: `stop` said so; it is asked between any two forwards.
        """
        with torch.no_grad():
            result = self._attempt(Run(job, tell, stop), last=False)
            if result is None:
                again = Run(job, tell, stop)
                again.say(f"Out of memory; trying again, {self._ready.placement}")
                result = self._attempt(again, last=True)
        assert result is not None
        return result

    @property
    def _ready(self) -> Loaded:
        assert self._loaded is not None
        return self._loaded

    @property
    def _accelerated(self) -> Modes:
        assert self._modes is not None
        return self._modes

    def _attempt(self, run: Run, last: bool) -> GenerationResult | None:
        """None if memory ran out and a smaller placement was taken."""
        try:
            return self._render(run)
        except (RuntimeError, MemoryError) as exc:
            if not _out_of_memory(exc):
                raise
            needed = _asked_for(exc)
        # Only now is the failed attempt's memory free: the exception held its frames.
        forget_garbage()
        if self._loaded is None:
            reason = f"memory ran out while loading the model{needed}"
            raise BackendUnavailable(backend="local", reason=reason)
        if last or not self._shrink(self._loaded):
            width, height = run.request.pixels
            problem = f"{width} × {height} needs more memory than there is{needed}"
            raise InvalidRequest(field="image_size", problem=problem)
        forget_garbage()
        return None

    def _shrink(self, loaded: Loaded) -> bool:
        """Free some of the device's memory; False if there is nothing to spare."""
        spared = self._modes is not None and self._modes.shrink()
        if self._adapters is not None:
            self._adapters.shrink()
        return loaded.shrink() or self._adapters is not None or spared

    def _render(self, run: Run) -> GenerationResult:
        self._prepare(run)
        size = rendered_size(run.request, self._ready.multiple, self._ready.largest_side)
        prompt = self._prompt(run)
        with self._timed(run, "encoding"):
            encoded = self._encoder.encode(prompt)
        loras = self._merge(run)
        chosen = self._accelerated.choose(run.request.acceleration)
        images = self._decode(run, self._latents(run, chosen.transformer, encoded, size))
        flags = self._flags(run, images)
        images = [blackened(*pair) for pair in zip(images, flags, strict=True)] if flags else images
        with run.timings.stage("files"):
            files = as_files(images, run.request)
        return GenerationResult(
            images=files,
            timings=run.timings.seconds,
            seed=seeds(run.request)[0],
            has_nsfw_concepts=flags,
            prompt=prompt,
            loras=loras,
            acceleration=chosen.mode,
            warnings=(*chosen.warnings, *self._warnings(run, encoded, size, prompt)),
        )

    # -- getting ready ---------------------------------------------------------

    def _prepare(self, run: Run) -> None:
        with run.timings.stage("load"):
            if run.request.enable_safety_checker and self._checker is None:
                self._checker = load_checker(self._options, run.say, run.stop)
            if self._loaded is None:
                folder = find_model(self._options.model, self._options, run.say, run.stop)
                run.go_on()
                self._settle_in(self._load(folder, self._options, run.say))
            self._modes = self._modes or self._new_modes(self._ready, self._options)
            self._modes.warm_up(run.say, run.stop)
        run.go_on()

    def _settle_in(self, loaded: Loaded) -> None:
        self._encoder = PromptEncoder(loaded)
        self._project: Project = projection(loaded)
        self._loaded = loaded

    def _prompt(self, run: Run) -> str:
        asked = run.request
        if not asked.enable_prompt_expansion:
            return asked.prompt
        with run.timings.stage("expansion"):
            return expand(self._ready, asked.prompt, seeds(asked)[0], run.stop) or asked.prompt

    def _merge(self, run: Run) -> tuple[AppliedLora, ...]:
        if not run.job.loras:
            if self._adapters is not None:
                self._adapters.restore()
                self._accelerated.written(self._adapters.take_written())
            return ()
        with self._timed(run, "adapters"):
            self._adapters = self._adapters or self._new_adapters(self._ready)
            applied = self._adapters.apply(run.job.loras)
            self._accelerated.written(self._adapters.take_written())
            return applied

    # -- making the images -----------------------------------------------------

    def _latents(
        self, run: Run, transformer: Any, encoded: Encoded, size: tuple[int, int]
    ) -> list[Any]:
        start = [noise(self._ready, seed, *size) for seed in seeds(run.request)]
        steps = run.request.num_inference_steps
        previews = Previews(self._project)
        forwards = denoise(self._ready, transformer, start, encoded.embeds, steps, run.stop)
        with self._timed(run, "denoising"):
            for seen in forwards:
                # Of the first image, as it will be: as it is, it is still full of noise.
                run.tell(Running(seen.step, steps, preview=previews.take(seen.estimates[0])))
        return seen.latents

    def _decode(self, run: Run, latents: Sequence[Any]) -> list[Image.Image]:
        images = []
        with run.timings.stage("decoding"):
            for one in latents:
                run.go_on()
                whole = Image.fromarray(decode(self._ready, one))
                images.append(_middle(whole, run.request.pixels))
        return images

    def _flags(self, run: Run, images: Sequence[Image.Image]) -> tuple[bool, ...]:
        """One for each image; none at all if nobody looked."""
        if not run.request.enable_safety_checker or self._checker is None:
            return ()
        with run.timings.stage("safety"):
            return self._checker(images)

    def _warnings(
        self, run: Run, encoded: Encoded, size: tuple[int, int], prompt: str
    ) -> tuple[str, ...]:
        asked, found = run.request, []
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
        return (*found, *(self._adapters.warnings if run.job.loras and self._adapters else ()))

    @contextmanager
    def _timed(self, run: Run, name: str) -> Iterator[None]:
        """A stage whose work may still be under way on the GPU when its code has run."""
        with run.timings.stage(name):
            yield
            self._ready.settle()


def _out_of_memory(exc: RuntimeError | MemoryError) -> bool:
    """On a GPU it has a class of its own; on a processor PyTorch only words it."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(exc, kinds) or "can't allocate memory" in str(exc)


def _asked_for(exc: BaseException) -> str:
    """The amount that wasn't there, in PyTorch's words."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(exc))
    return f" ({found[1]} more)" if found else ""


def _middle(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cropped to `size`, width and height."""
    width, height = size
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
