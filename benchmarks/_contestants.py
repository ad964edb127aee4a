"""Who makes the image: stock diffusers as it comes, stock at its best, and ours in three modes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import ZImagePipeline

from backends.local.engine import Engine
from backends.local.job import Job
from backends.local.loading import Loaded
from backends.local.options import LocalOptions
from backends.local.placement import Placement
from benchmarks._machine import settle
from benchmarks._z_image import RANK, Model
from generation.lora_file import LoraFile
from generation.request import Acceleration, GenerationRequest, ImageSize, LoraRef
from generation.result import GenerationResult

STEPS = 8
EAGER = "stock, eager + PEFT"


@dataclass(frozen=True, slots=True)
class Scene:
    """One request: a square of `side` pixels, `images` of it, with so many adapters."""

    side: int
    images: int
    adapters: int
    prompt: str = "a fox in the snow"
    steps: int = STEPS


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds from the prompt to the pictures, and of the denoising alone."""

    whole: float
    denoising: float


class Contestant(Protocol):
    """Renders scenes; `name` is for the table."""

    @property
    def name(self) -> str: ...

    def render(self, scene: Scene) -> Taken: ...


@dataclass(slots=True)
class Stock:
    """`ZImagePipeline` with PEFT, called as its documentation does."""

    name: str
    pipe: Any
    names: list[str]
    device: torch.device
    _active: int = -1
    _started: float = 0.0

    def render(self, scene: Scene) -> Taken:
        self._use(scene.adapters)
        marks: list[float] = []

        def mark(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if step == scene.steps - 1:
                settle(self.device)
                marks.append(time.perf_counter())
            return values

        prompt = self._encoded(scene)
        settle(self.device)
        encoded = time.perf_counter()
        self.pipe(
            prompt_embeds=prompt,
            negative_prompt_embeds=[],
            height=scene.side,
            width=scene.side,
            num_inference_steps=scene.steps,
            guidance_scale=0.0,
            num_images_per_prompt=scene.images,
            generator=torch.Generator("cpu").manual_seed(0),
            callback_on_step_end=mark,
        )
        settle(self.device)
        return Taken(time.perf_counter() - self._started, marks[-1] - encoded)

    def _encoded(self, scene: Scene) -> Any:
        """As the call would do itself; apart, so that denoising can be told from it."""
        settle(self.device)
        self._started = time.perf_counter()
        found, _ = self.pipe.encode_prompt(
            scene.prompt, device=self.device, do_classifier_free_guidance=False
        )
        return found

    def _use(self, count: int) -> None:
        """Before the clock starts: what changing adapters costs is measured apart."""
        if count == self._active:
            return
        if count:
            self.pipe.enable_lora()
            self.pipe.set_adapters(self.names[:count], [1.0] * count)
        else:
            self.pipe.disable_lora()
        self._active = count


def stock(
    model: Model, shared: Any, files: Sequence[Path], device: torch.device, *, best: bool
) -> Stock:
    """A transformer of its own, everything else shared. `best` is what diffusers' documentation
    names for speed with adapters: blocks compiled, hot-swapping, FlashAttention of PyTorch."""
    parts = {**shared.components, "transformer": model.transformer(device)}
    pipe = ZImagePipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    if best:
        pipe.enable_lora_hotswap(target_rank=RANK)
    names = [file.stem.replace("-", "_") for file in files]
    for name, file in zip(names, files, strict=True):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
    if best:
        torch._dynamo.config.recompile_limit = 64  # one for each number of adapters, and more
        pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
    title = "stock, compiled, hot-swap" if best else EAGER
    return Stock(title, pipe, names, device)


@dataclass(slots=True)
class Ours:
    """The engine of the local backend in one mode."""

    acceleration: Acceleration
    engine: Engine
    files: Sequence[Path]

    @property
    def name(self) -> str:
        return f"ours, {self.acceleration}"

    def render(self, scene: Scene) -> Taken:
        # The adapters are in place, as with the others; the prompt is as new as to them.
        self.run(replace(scene, prompt=f"not {scene.prompt}", steps=1))
        started = time.perf_counter()
        result = self.run(scene)
        whole = time.perf_counter() - started
        return Taken(whole, result.timings["denoising"])

    def run(self, scene: Scene, files: Sequence[Path] | None = None) -> GenerationResult:
        """One job, with `files` in place of the first adapters if they are given."""
        chosen = self.files[: scene.adapters] if files is None else files
        request = GenerationRequest(
            prompt=scene.prompt,
            image_size=ImageSize(width=scene.side, height=scene.side),
            num_inference_steps=scene.steps,
            num_images=scene.images,
            seed=0,
            acceleration=self.acceleration,
            enable_safety_checker=False,
            output_format="jpeg",
            loras=tuple(LoraRef(path=_named(file), scale=1.0) for file in chosen),
        )
        found = {_named(file): LoraFile(_named(file), local=file) for file in chosen}
        return self.engine.run(Job.of(request, found), lambda _event: None, lambda: False)


def _named(file: Path) -> str:
    """As a request names an adapter."""
    return f"benchmark/{file.stem}"


def in_memory(pipe: Any, folder: Path, device: torch.device) -> Loaded:
    """A pipeline that was made, not read, as the engine has it; `folder` holds nothing of it."""
    dtype = next(pipe.transformer.parameters()).dtype
    placement = Placement.GPU if device.type == "cuda" else Placement.CPU
    return Loaded(pipe, folder, placement, device, dtype)


def engine(loaded: Loaded) -> Engine:
    """The local backend's engine over it."""
    return Engine(LocalOptions(model=str(loaded.folder)), load=lambda *_: loaded)
