"""What the machine itself can do: products and copies, measured at the model's own shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from benchmarks._common import Spread

REPEATS: Final = 20


@dataclass(frozen=True, slots=True)
class Rates:
    """`product` and `product8` in FLOP/s (bf16, and fp8 where there is such a unit), copies in
    bytes/s: within the device's memory (read and written), and to it from pinned main memory."""

    product: Spread
    product8: Spread | None
    copy: Spread
    upload: Spread | None


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> Spread:
    """Of each repetition, after two that aren't counted."""
    taken = []
    for number in range(repeats + 2):
        settle(device)
        started = time.perf_counter()
        work()
        settle(device)
        taken += [time.perf_counter() - started] if number > 1 else []
    return Spread(tuple(taken))


def measure(device: torch.device, rows: int, inner: int, columns: int) -> Rates:
    """A product of (rows, inner) by (inner, columns), and copies of a tensor of 2 bytes each."""
    left = torch.randn(rows, inner, device=device).to(torch.bfloat16)
    right = torch.randn(columns, inner, device=device).to(torch.bfloat16)
    out = torch.empty(rows, columns, device=device, dtype=torch.bfloat16)
    work = 2.0 * rows * inner * columns
    moved = torch.empty(64 * 2**20 if device.type == "cuda" else 2**20, dtype=torch.bfloat16)
    there, here = moved.to(device), torch.empty_like(moved, device=device)
    return Rates(
        product=_rate(work, seconds(lambda: torch.mm(left, right.T, out=out), device)),
        product8=_product8(left, right, work, device),
        copy=_rate(2.0 * moved.nbytes, seconds(lambda: here.copy_(there), device)),
        upload=_upload(moved, here, device),
    )


def _product8(
    left: torch.Tensor, right: torch.Tensor, work: float, device: torch.device
) -> Spread | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return None
    small, wide = (side.to(torch.float8_e4m3fn) for side in (left, right))
    one = torch.ones((), device=device)

    def multiply() -> None:
        torch._scaled_mm(small, wide.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    return _rate(work, seconds(multiply, device))


def _upload(moved: torch.Tensor, here: torch.Tensor, device: torch.device) -> Spread | None:
    if device.type != "cuda":
        return None
    pinned = moved.pin_memory()
    return _rate(moved.nbytes, seconds(lambda: here.copy_(pinned, non_blocking=True), device))


def _rate(amount: float, taken: Spread) -> Spread:
    return Spread(tuple(amount / one for one in taken.values))
