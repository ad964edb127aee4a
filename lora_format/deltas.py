"""What an adapter's tensors do to one weight: by which method, of what shape and rank.

Only shapes are looked at. A change is defined if its tensors are complete and
fit each other; then merging can apply it, whatever its keys are called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Shape = tuple[int, ...]


class Kind(StrEnum):
    LORA = "LoRA"
    LOKR = "LoKr"
    LOHA = "LoHa"
    DORA = "DoRA"
    FULL_DIFFERENCE = "full difference"
    NOT_AN_ADAPTER = "not an adapter"


@dataclass(frozen=True, slots=True)
class Delta:
    """ΔW of one module: its shape, and the rank where the method has one."""

    shape: Shape
    rank: int | None = None


def kind_of(parts: Mapping[str, Shape]) -> Kind | None:
    """The method that the parts' names speak of, complete or not."""
    if "down" in parts or "up" in parts:
        return Kind.DORA if "dora_scale" in parts else Kind.LORA
    if any(part.startswith("lokr_") for part in parts):
        return Kind.LOKR
    if any(part.startswith("hada_") for part in parts):
        return Kind.LOHA
    return Kind.FULL_DIFFERENCE if "diff" in parts or "diff_b" in parts else None


def delta_of(parts: Mapping[str, Shape]) -> Delta | None:
    """The change that a module's tensors (shapes by part) make, if they make one."""
    factors = {part: shape for part, shape in parts.items() if part not in ("alpha", "dora_scale")}
    delta = _product(factors) or _kronecker(factors) or _hadamard(factors) or _difference(factors)
    return delta if delta and _scales_fit(parts, delta) else None


def _scales_fit(parts: Mapping[str, Shape], delta: Delta) -> bool:
    """Alpha is one number; DoRA's scales are one per row or per column."""
    alpha = math.prod(parts.get("alpha", ()))
    scales = parts.get("dora_scale")
    return alpha == 1 and (scales is None or math.prod(scales) in delta.shape)


def _product(parts: Mapping[str, Shape]) -> Delta | None:
    return _times(parts["up"], parts["down"]) if parts.keys() == {"up", "down"} else None


def _times(left: Shape, right: Shape) -> Delta | None:
    """(out, rank) times (rank, in)."""
    match left, right:
        case (rows, rank), (same, columns) if rank == same and rows * rank * columns:
            return Delta((rows, columns), rank)
    return None


def _kronecker(parts: Mapping[str, Shape]) -> Delta | None:
    """Two sides, each whole or a product; the rank is that of the second, else of the first."""
    first, second = _side(parts, "lokr_w1"), _side(parts, "lokr_w2")
    used = {part for side in (first, second) if side for part in side[0]}
    if first is None or second is None or used != parts.keys():
        return None
    (rows, columns), (more_rows, more_columns) = first[1].shape, second[1].shape
    shape = (rows * more_rows, columns * more_columns)
    return Delta(shape, second[1].rank or first[1].rank)


def _side(parts: Mapping[str, Shape], name: str) -> tuple[tuple[str, ...], Delta] | None:
    """One side of a Kronecker product, and the parts that it is made of."""
    whole, factors = parts.get(name), (f"{name}_a", f"{name}_b")
    if whole is not None:
        return ((name,), Delta(whole)) if len(whole) == 2 and all(whole) else None
    if not parts.keys() >= set(factors):
        return None
    delta = _times(parts[factors[0]], parts[factors[1]])
    return (factors, delta) if delta else None


def _hadamard(parts: Mapping[str, Shape]) -> Delta | None:
    """Two products of one shape, multiplied number by number."""
    if parts.keys() != {f"hada_w{side}_{end}" for side in (1, 2) for end in "ab"}:
        return None
    first = _times(parts["hada_w1_a"], parts["hada_w1_b"])
    second = _times(parts["hada_w2_a"], parts["hada_w2_b"])
    return first if first and second and first.shape == second.shape else None


def _difference(parts: Mapping[str, Shape]) -> Delta | None:
    """Added as it is, to the weight (`diff`); one for the bias (`diff_b`) may come with it."""
    if "diff" not in parts or not parts.keys() <= {"diff", "diff_b"}:
        return None
    return Delta(parts["diff"]) if math.prod(parts["diff"]) else None
