"""What an adapter does to one weight: the factors it keeps, and the change that they stand for.

Changes are computed in float32. `rows` are those of the whole change that belong to the
weight: a third of them where queries, keys and values were trained as one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Side = tuple[Tensor, ...]
"""A matrix, or the two factors of one."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """scale · up @ down, of (out, rank) and (rank, in)."""

    up: Tensor
    down: Tensor
    scale: float

    def added(self, _base: Tensor) -> Tensor:
        return _product((self.up, self.down)) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker:
    """scale · first ⊗ second: each number of the first stands for a block of the second."""

    first: Side
    second: Side
    scale: float
    rows: slice

    def added(self, _base: Tensor) -> Tensor:
        first, second = _product(self.first), _product(self.second)
        height = second.shape[0]
        above = self.rows.start // height
        blocks = first[above : -(-self.rows.stop // height)]  # only those that have such rows
        whole = torch.kron(blocks, second) * self.scale
        return whole[self.rows.start - above * height : self.rows.stop - above * height]


@dataclass(frozen=True, slots=True, eq=False)
class Hadamard:
    """scale · first * second, number by number; each is a product of two factors."""

    first: Side
    second: Side
    scale: float

    def added(self, _base: Tensor) -> Tensor:
        return _product(self.first) * _product(self.second) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Added as it is, to a weight of any shape or to a bias."""

    difference: Tensor

    def added(self, _base: Tensor) -> Tensor:
        return self.difference.float()


Plain = LowRank | Kronecker | Hadamard | Difference


@dataclass(frozen=True, slots=True, eq=False)
class Renormed:
    """DoRA: the changed weight, whose rows (or columns) are then given the lengths of `lengths`.

    `lengths` has the shape (out, 1) or (1, in).
    """

    change: Plain
    lengths: Tensor

    def added(self, base: Tensor) -> Tensor:
        changed = base + self.change.added(base)
        across = 1 if self.lengths.shape[1] == 1 else 0
        found = torch.linalg.vector_norm(changed, dim=across, keepdim=True)
        return changed * (self.lengths.float() / found.clamp_min(1e-12)) - base


Change = Plain | Renormed
"""`added(base)` is ΔW at scale 1, in float32, for a base weight in float32."""


def _product(side: Side) -> Tensor:
    whole = side[0].float()
    return whole @ side[1].float() if len(side) == 2 else whole
