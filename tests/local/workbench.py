"""What makes kernels on a processor, as far as it can: traced, replayed, and always faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from backends.local.acceleration import Modes
from backends.local.compiled import Inputs
from backends.local.denoising import noise, velocity
from backends.local.graphs import replaying
from backends.local.kernels import Kernels, Tools
from backends.local.loading import Loaded, load_pipeline
from backends.local.options import LocalOptions
from tests.standins.tiny_pipeline import tiny_transformer

Function = Callable[..., torch.Tensor]


def deep(tiny: LocalOptions, layers: int = 4) -> Loaded:
    """The tiny pipeline with main layers between the first and the last."""
    loaded = load_pipeline(Path(tiny.model), tiny, lambda _line: None)
    torch.manual_seed(5)
    loaded.pipe.transformer = tiny_transformer(layers).eval().requires_grad_(False)
    return loaded


class Workbench:
    """Counts what is traced (`graphs`), recorded and replayed. Its `tools` compile nothing, and
    always find compiled code the faster."""

    def __init__(self) -> None:
        self.graphs = 0
        self.recorded: list[int] = []
        self.replayed: list[int] = []
        self.lines: list[str] = []
        self._ticks = 0.0
        self.tools = Tools(
            compile=self.compile,
            capturer=lambda: self.capture,
            clock=self.clock,
            why_not_compiled=lambda _loaded: None,
            why_not_fp8=lambda _loaded: "it wasn't asked for",
            side=256,
            small=128,
        )

    def compile(self, function: Function) -> Function:
        """Nothing, at once."""
        return function

    def trace(self, function: Function) -> Function:
        """By PyTorch's compiler, whose graphs then run eagerly."""
        traced: Function = torch.compile(function, backend=self._count, dynamic=True)
        return traced

    def _count(self, module: torch.fx.GraphModule, _inputs: Any) -> Any:
        self.graphs += 1
        return module.forward

    def capture(self, run: Function, inputs: Inputs) -> Function:
        """As a CUDA graph does it: fixed inputs and outputs, and what happens between them."""
        held = tuple(one.clone() for one in inputs)
        made = run(*held)
        self.recorded.append(len(held[0]))

        def replay() -> None:
            self.replayed.append(len(held[0]))
            made.copy_(run(*held))

        return replaying(held, made, replay)

    def clock(self, work: Callable[[], object]) -> float:
        """Each takes longer than the one before: the compiled one is measured first."""
        work()
        self._ticks += 1
        return self._ticks

    def modes(self, loaded: Loaded, data: Path | None = None, **changes: Any) -> Modes:
        """Warm ones, by these tools but for some changes."""
        modes = Modes(loaded, data, replace(self.tools, **changes))
        with torch.no_grad():
            modes.warm_up(self.lines.append, lambda: False)
        self.replayed = []
        return modes


def kernels(modes: Modes) -> Kernels:
    made = modes._kernels
    assert made is not None
    return made


def only(name: str, other: Callable[[Function], Function], bench: Workbench) -> Any:
    """A compiler that makes something else of one region, and is honest with the others."""

    def compile_(function: Function) -> Function:
        made = bench.compile(function)
        return other(made) if function.__name__ == name else made

    return compile_


def forward(loaded: Loaded, transformer: Any, size: tuple[int, int], words: int, seed: int) -> Any:
    """A velocity at a size in pixels, with a prompt of so many tokens."""
    dice = torch.Generator().manual_seed(seed)
    embeds = torch.randn(words, loaded.pipe.transformer.config.cap_feat_dim, generator=dice)
    moment = torch.rand(1, generator=dice)
    with torch.no_grad():
        return velocity(transformer, noise(loaded, seed, *size), moment, embeds)
