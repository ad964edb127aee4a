"""Linear layers in eight bits: e4m3 weights by row, activations by token, as they come.

Each row of a weight and each token has its own scale, the largest magnitude over e4m3's. The
products are `torch._scaled_mm`'s, accumulated in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from backends.local.compiled import sharing

E4M3: Final = torch.float8_e4m3fn
LARGEST: Final = torch.finfo(E4M3).max
SMALLEST: Final = 1e-12  # so that a row of zeros can be divided

LINEARS: Final = (
    "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0",
    "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip
"""The large linear layers of a block; its modulation stays as it is."""


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, width) as e4m3 and one float32 scale a row (n, 1): rows ≈ e4m3 · scale."""
    wide = rows.float()
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(SMALLEST)
    return (wide / scale).clamp(-LARGEST, LARGEST).to(E4M3), scale


def quantise_into(weight: Tensor, eight: Tensor, scale: Tensor) -> None:
    """A weight (out, in) into buffers (out, in) and (out, 1) that stay where they are."""
    rows, factors = quantised(weight)
    eight.copy_(rows)
    scale.copy_(factors)


class Fp8Linear(nn.Module):  # type: ignore[misc]
    """A linear layer without a bias, from `source`, whose weight it follows on demand."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        weight = source.weight
        self.register_buffer("weight", torch.empty_like(weight, dtype=E4M3))
        self.register_buffer("scale", weight.new_empty(len(weight), 1, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        rows, scale = quantised(x.flatten(0, -2))
        product = torch._scaled_mm(
            rows, self.weight.t(), scale_a=scale, scale_b=self.scale.t(),
            out_dtype=x.dtype, use_fast_accum=True,
        )  # fmt: skip
        return product.unflatten(0, x.shape[:-1])


class Fp8Blocks:
    """Copies of blocks whose large linear layers compute in eight bits.

    `prefix` and numbers name the sources' parameters ("layers.3.…"). `quantise` is
    `quantise_into`, compiled where that is worth it.
    """

    def __init__(
        self,
        row: Sequence[nn.Module],
        numbers: Collection[int],
        *,
        prefix: str = "layers",
        quantise: Callable[..., None] = quantise_into,
    ) -> None:
        self.blocks = {number: sharing(row[number]) for number in numbers}
        self._quantise = quantise
        self._pairs: dict[str, tuple[Tensor, Any]] = {}
        for number, block in self.blocks.items():
            for name in LINEARS:
                source = row[number].get_submodule(name)
                block.set_submodule(name, mine := Fp8Linear(source))
                self._pairs[f"{prefix}.{number}.{name}.weight"] = (source.weight, mine)
        self.follow(self._pairs)

    @property
    def nbytes(self) -> int:
        """Of all buffers."""
        return sum(one.weight.nbytes + one.scale.nbytes for _, one in self._pairs.values())

    def follow(self, changed: Collection[str]) -> None:
        """Quantise anew the parameters of these names that are here; others are left alone."""
        for name, (weight, mine) in self._pairs.items():
            if name in changed:
                self._quantise(weight.data, mine.weight, mine.scale)


def room(row: Sequence[nn.Module]) -> int:
    """Bytes that the copies of these blocks will take."""
    sources = [block.get_submodule(name).weight for block in row for name in LINEARS]
    return sum(weight.numel() + 4 * len(weight) for weight in sources)
