"""Where the parts of the pipeline live, decided by numbers before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from generation.errors import BackendUnavailable

GIB: Final = 2**30
WORK: Final = 4 * GIB  # activations of a 1024² image and its decoding in bf16, with a margin
STREAM: Final = 2 * GIB  # the groups of layers that are on their way


class Placement(StrEnum):
    """From the most memory to the least; `CPU` needs no GPU."""

    GPU = "all on the GPU"
    TEXT_STREAMED = "text encoder streamed from main memory"
    ALL_STREAMED = "text encoder and transformer streamed from main memory"
    CPU = "all on the processor"


ON_GPU: Final = (Placement.GPU, Placement.TEXT_STREAMED, Placement.ALL_STREAMED)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of each part in the type that it runs in."""

    transformer: int
    text_encoder: int
    vae: int

    @property
    def total(self) -> int:
        return self.transformer + self.text_encoder + self.vae

    @property
    def work(self) -> int:
        """Bytes to compute in; no more than the weights, for models that are tiny."""
        return min(WORK, self.total)

    def on_gpu(self, placement: Placement) -> int:
        """Bytes that a GPU must have free."""
        needs = {
            Placement.GPU: self.total + self.work,
            Placement.TEXT_STREAMED: self.transformer + self.vae + STREAM + self.work,
            Placement.ALL_STREAMED: self.vae + STREAM + self.work,
            Placement.CPU: 0,
        }
        return needs[placement]

    def in_memory(self, placement: Placement) -> int:
        """Bytes that the machine must have free: what streams is kept there."""
        needs = {
            Placement.GPU: 0,
            Placement.TEXT_STREAMED: self.text_encoder,
            Placement.ALL_STREAMED: self.text_encoder + self.transformer,
            Placement.CPU: self.total + self.work,
        }
        return needs[placement]


def choose(weights: Weights, gpu: int | None, memory: int) -> Placement:
    """The fastest placement that fits `gpu` (None: there is none) and `memory` free bytes.

    Raises:
        BackendUnavailable: none does; it says what was needed and what is there.
    """
    able = ON_GPU if gpu is not None else (Placement.CPU,)
    for placement in able:
        if weights.on_gpu(placement) <= (gpu or 0) and weights.in_memory(placement) <= memory:
            return placement
    raise BackendUnavailable(backend="local", reason=_misfit(weights, able, gpu, memory))


def smaller(placement: Placement) -> Placement | None:
    """The next placement that leaves more of the GPU free."""
    later = ON_GPU[ON_GPU.index(placement) + 1 :] if placement in ON_GPU else ()
    return next(iter(later), None)


def _misfit(weights: Weights, able: Sequence[Placement], gpu: int | None, memory: int) -> str:
    least = able[-1]
    needs = [f"{_size(weights.in_memory(least))} of free main memory (there are {_size(memory)})"]
    if gpu is not None:
        needs.insert(
            0, f"{_size(weights.on_gpu(least))} of free GPU memory (there are {_size(gpu)})"
        )
    return "the model needs at least " + " and ".join(needs)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
