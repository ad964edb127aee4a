"""What compiled code must show before anyone's image is made with it: the same numbers, faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from backends.local.compiled import Inputs, Region, Run, resized, run_block

ROUNDINGS: Final = 4  # of the type's spacing; eager and fused code of one block differ by half one
FP8: Final = 2**-3  # e4m3 keeps three bits: about a thirtieth a product, adding up over a block
WHOLE: Final = 16  # spacings that a whole forward may differ by: roundings add up over the blocks
TIMES: Final = 5

Clock = Callable[[Callable[[], object]], float]
"""The median of a function's seconds."""


class Rejected(Exception):
    """Its text says why, to a person."""


def seconds(work: Callable[[], object]) -> float:
    """Including the work that is queued on a GPU."""
    return statistics.median(_once(work) for _ in range(TIMES))


def _once(work: Callable[[], object]) -> float:
    _settle()
    started = time.perf_counter()
    work()
    _settle()
    return time.perf_counter() - started


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def check_blocks(region: Region, blocks: Sequence[nn.Module], inputs: Inputs, far: float) -> None:
    """Each block of a region against its eager one, on what the eager ones before it made.

    Raises:
        Rejected: some token differs by more than `far` of its length.
    """
    tokens, *others = inputs
    for (block, run), eager in zip(region.steps, blocks, strict=True):
        wanted = run_eager(eager, tokens, *others)
        check_close(run(block, tokens, *others), wanted, far)
        tokens = wanted


def run_eager(block: nn.Module, tokens: Tensor, rotations: Tensor, *modulation: Tensor) -> Tensor:
    """One of the model's own blocks, which takes complex rotations."""
    return run_block(block, tokens, torch.view_as_complex(rotations), *modulation)


def check_close(found: Tensor, wanted: Tensor, far: float) -> None:
    """Raises `Rejected` if a row differs by more than a share of its length, or isn't a number."""
    apart = torch.linalg.vector_norm(found.float() - wanted.float(), dim=-1)
    length = torch.linalg.vector_norm(wanted.float(), dim=-1).clamp_min(1e-12)
    share = float((apart / length).max())
    if not share <= far:
        raise Rejected(f"its numbers differ from the eager ones by {share:.1%}")


def spacing(dtype: torch.dtype) -> float:
    """Between 1 and the next number of a type."""
    return float(torch.finfo(dtype).eps)


def check_faster(mine: float, eager: float) -> None:
    """Raises `Rejected` unless seconds are saved."""
    if mine >= eager:
        raise Rejected(f"it takes {mine * 1e3:.3g} ms where eager kernels take {eager * 1e3:.3g}")


def meet_scales(region: Region, inputs: Inputs, counts: Sequence[int]) -> None:
    """One block of each kind at the extremes of scale, where compiled code may fork."""
    kinds: dict[Run, nn.Module] = {run: block for block, run in region.steps}
    for count in counts:
        for run, block in kinds.items():
            run(block, *resized(inputs, count))
