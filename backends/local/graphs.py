"""CUDA graphs: the launches of a whole region recorded once, and repeated as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from backends.local.compiled import Inputs

Capture = Callable[[Callable[..., Tensor], Inputs], Callable[..., Tensor]]
"""From a function and an example of its inputs to the same function for inputs of those shapes."""


def capturer() -> Capture:
    """Captures whose graphs compute in the same memory: they never run at the same time, and
    their inputs and outputs are copied in and out of it."""
    pool = torch.cuda.graph_pool_handle()
    return lambda run, inputs: _capture(run, inputs, pool)


def _capture(run: Callable[..., Tensor], inputs: Inputs, pool: Any) -> Callable[..., Tensor]:
    held = tuple(one.clone() for one in inputs)
    _once_aside(run, held)
    graph = torch.cuda.CUDAGraph()
    # Other threads (the page's, a file's reader) may use the GPU while this one captures.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        made = run(*held)
    return replaying(held, made, graph.replay)


def _once_aside(run: Callable[..., Tensor], inputs: Inputs) -> None:
    """Libraries allocate at their first call, which must not be recorded."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run(*inputs)
    torch.cuda.current_stream().wait_stream(aside)


def replaying(held: Inputs, made: Tensor, replay: Callable[[], object]) -> Callable[..., Tensor]:
    """A recording from `held` to `made` as a function, whose result is the caller's own."""

    def run(*inputs: Tensor) -> Tensor:
        for mine, given in zip(held, inputs, strict=True):
            mine.copy_(given)
        replay()
        return made.clone()

    return run
