"""What an adapter does to one weight, by every method: its tensors, and the merge they stand for.

The merge is in float64 from the numbers as they are stored. At a scale other than 1 it is the
way from the base weight to the merged one, which matters for DoRA only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.standins.adapters.model import Shape
from tests.standins.adapters.tensors import Tensor

Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spec:
    """The numbers of a training run. Without `alpha` nothing is written and the factor is 1."""

    rank: int = 4
    alpha: float | None = None
    dtype: str = "BF16"
    factor: int = 4  # of a LoKr: the side of its small matrix
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """The tensors of one module by their part ("down", "lokr_w1", …).

    `written` is the module's name in the file, dotted; `modules` are diffusers' names for it,
    three where queries, keys and values are one weight.
    """

    written: str
    modules: tuple[str, ...]
    parts: Mapping[str, Tensor]
    rank: int | None = None

    def merged(self, weight: Wide, scale: float = 1.0) -> Wide:
        """The weight (of fused modules: stacked) with this change at a scale."""
        changed = weight + self.delta()
        if "dora_scale" in self.parts:
            rows: Wide = np.sqrt(np.square(changed).sum(axis=1, keepdims=True))
            changed *= self._wide("dora_scale").reshape(-1, 1) / rows
        return weight + scale * (changed - weight)

    def delta(self) -> Wide:
        """ΔW without DoRA's renormalisation, at scale 1."""
        if "diff" in self.parts:
            return self._wide("diff")
        if "down" in self.parts:
            return self._wide("up") @ self._wide("down") * self._factor("down")
        if "hada_w1_a" in self.parts:
            left = self._wide("hada_w1_a") @ self._wide("hada_w1_b")
            right = self._wide("hada_w2_a") @ self._wide("hada_w2_b")
            return left * right * self._factor("hada_w1_b")
        whole = np.kron(self._kron_side("lokr_w1"), self._kron_side("lokr_w2"))
        return whole.astype(np.float64) * self._kron_factor()

    def _wide(self, part: str) -> Wide:
        return self.parts[part].values().astype(np.float64)

    def _factor(self, first: str) -> float:
        alpha = self.parts.get("alpha")
        return float(alpha.values()) / self.parts[first].shape[0] if alpha else 1.0

    def _kron_side(self, side: str) -> Wide:
        if side in self.parts:
            return self._wide(side)
        return self._wide(f"{side}_a") @ self._wide(f"{side}_b")

    def _kron_factor(self) -> float:
        """LyCORIS scales by alpha / rank only where a side is a product of two factors."""
        return self._factor("lokr_w2_b") if "lokr_w2_b" in self.parts else 1.0


@dataclass
class _Maker:
    """Tensors of one module, each with a seed of its own."""

    module: str
    spec: Spec
    parts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, part: str, *shape: int, dtype: str | None = None) -> None:
        seed = zlib.crc32(f"{self.module} {part} {self.spec.seed}".encode())
        self.parts[part] = Tensor(dtype or self.spec.dtype, shape, seed)

    def add_alpha(self) -> None:
        if self.spec.alpha is not None:
            self.parts["alpha"] = Tensor("F32", (), constant=self.spec.alpha)


Method = Callable[[str, tuple[str, ...], Shape, Spec], Change]


def lora(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    made = _Maker(written, spec)
    made.add("down", spec.rank, shape[1])
    made.add("up", shape[0], spec.rank)
    made.add_alpha()
    return Change(written, modules, made.parts, spec.rank)


def dora(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    plain = lora(written, modules, shape, spec)
    scales = Tensor(spec.dtype, (shape[0], 1), constant=0.75)
    return Change(written, modules, {**plain.parts, "dora_scale": scales}, spec.rank)


def dora_of_peft(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    """PEFT writes the scales in one dimension."""
    made = dora(written, modules, shape, spec)
    scales = Tensor(spec.dtype, (shape[0],), constant=0.75)
    return Change(written, modules, {**made.parts, "dora_scale": scales}, spec.rank)


def lokr(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    """The large side as two factors of the rank."""
    made = _Maker(written, spec)
    rows, columns = (_divisor(side, spec.factor) for side in shape)
    made.add("lokr_w1", rows, columns)
    made.add("lokr_w2_a", shape[0] // rows, spec.rank)
    made.add("lokr_w2_b", spec.rank, shape[1] // columns)
    made.add_alpha()
    return Change(written, modules, made.parts, spec.rank)


def _divisor(side: int, factor: int) -> int:
    """The largest one up to the factor, as LyCORIS and PEFT choose it."""
    return next(n for n in range(factor, 0, -1) if side % n == 0)


def lokr_full(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    """Both sides whole: no rank, and alpha doesn't count."""
    made = _Maker(written, spec)
    rows, columns = (_divisor(side, spec.factor) for side in shape)
    made.add("lokr_w1", rows, columns)
    made.add("lokr_w2", shape[0] // rows, shape[1] // columns)
    made.add_alpha()
    return Change(written, modules, made.parts)


def loha(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    made = _Maker(written, spec)
    for side in ("hada_w1", "hada_w2"):
        made.add(f"{side}_a", shape[0], spec.rank)
        made.add(f"{side}_b", spec.rank, shape[1])
    made.add_alpha()
    return Change(written, modules, made.parts, spec.rank)


def difference(written: str, modules: tuple[str, ...], shape: Shape, spec: Spec) -> Change:
    made = _Maker(written, spec)
    made.add("diff", *shape)
    return Change(written, modules, made.parts)


def norm_difference(written: str, module: str, width: int, spec: Spec) -> Change:
    made = _Maker(written, spec)
    made.add("diff", width)
    return Change(written, (module,), made.parts)


def merge(
    changes: tuple[Change, ...], weights: Mapping[str, Wide], scale: float
) -> Iterator[tuple[str, Wide]]:
    """Each changed weight by its name (`layers.0.attention.to_q.weight`)."""
    for change in changes:
        names = [f"{module}.weight" for module in change.modules]
        stacked = np.concatenate([weights[name] for name in names])
        pieces = np.split(change.merged(stacked, scale), len(names))
        yield from zip(names, pieces, strict=True)
