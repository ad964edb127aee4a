"""Adapters merged into a transformer's weights, which come back exactly as they were.

The base weights are kept apart and never written. A change is computed from them into the
stable parameters, so a merge is rounded once, nothing drifts, and compiled code and CUDA
graphs, which hold the parameters' addresses, stay valid.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from backends.local.changes import Change, LowRank
from backends.local.factors import Factors
from lora_format.deltas import Shape
from lora_format.families import MODULES

Term = tuple[Change, float]
"""A change and its adapter's scale."""

Place = Literal["device", "host"]
"""Where pristine weights are kept: beside the parameters, or in (pinned) main memory."""

_FAST: Final = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of one adapter: `pairs` of the file's modules, applied to `modules`.

    `no_effect` says that it changes no weight at its scale, alone or (after rounding) with
    the others. The keys of a text encoder (`text_encoder`) are left out.
    """

    name: str
    scale: float
    pairs: int
    modules: tuple[str, ...]
    text_encoder: tuple[str, ...]
    repeated: tuple[str, ...]
    no_effect: bool


class Merger:
    """Merges adapters into one transformer, in place. For one thread at a time.

    `base` is where the pristine weights are kept, which takes the parameters' size again.
    """

    def __init__(self, model: nn.Module, base: Place = "device") -> None:
        self._parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.rpartition(".")[0] in MODULES
        }
        self._base = {name: _kept(p.data, base) for name, p in self._parameters.items()}
        self._now: dict[str, tuple[tuple[int, float], ...]] = {}
        self._written: set[str] = set()

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of all parameters that an adapter may change, by name."""
        return {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those parameters as they are now: the tensors themselves."""
        return {name: parameter.data for name, parameter in self._parameters.items()}

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and so where factors should be."""
        return next(iter(self._parameters.values())).device

    @property
    def changed(self) -> tuple[str, ...]:
        """The parameters that aren't the base's now."""
        return tuple(sorted(self._now))

    def take_written(self) -> frozenset[str]:
        """The parameters that were written since this was last called, for who keeps copies."""
        written, self._written = frozenset(self._written), set()
        return written

    def set(self, wanted: Sequence[tuple[Factors, float]]) -> tuple[Merged, ...]:
        """Make the weights the base with these adapters at these scales, whatever they were.

        Only parameters that differ from before are written. If anything fails, all of them
        are the base's again.
        """
        terms, marks = _planned(wanted)
        try:
            for name in self._now.keys() - marks.keys():
                self._reset(name)
            for name in [name for name, mark in marks.items() if self._now.get(name) != mark]:
                self._now[name] = ()  # neither the base's nor anything known, until it is written
                self._write(name, terms[name])
                self._now[name] = marks[name]
            return self._told(wanted)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Make every weight the base's again, bit by bit."""
        for name in list(self._now):
            self._reset(name)

    @contextmanager
    def applied(self, wanted: Sequence[tuple[Factors, float]]) -> Iterator[tuple[Merged, ...]]:
        """The adapters within a `with`, the base after it."""
        try:
            yield self.set(wanted)
        finally:
            self.restore()

    def move_base_to_host(self) -> None:
        """Leave the device's memory to others; the parameters stay as they are."""
        for name, weight in self._base.items():  # one by one: each is let go of at once
            if weight.is_cuda:
                self._base[name] = _kept(weight, "host")

    def _reset(self, name: str) -> None:
        self._written.add(name)
        self._parameters[name].data.copy_(self._base[name])
        del self._now[name]

    def _write(self, name: str, terms: list[Term]) -> None:
        self._written.add(name)
        weight = self._parameters[name].data
        base = self._base[name].to(weight.device, non_blocking=True)
        low_rank = [(change, scale) for change, scale in terms if isinstance(change, LowRank)]
        if len(low_rank) == len(terms) and weight.dtype in _FAST:
            _write_product(weight, base, low_rank)
        else:
            _write_sum(weight, base, terms)

    def _told(self, wanted: Sequence[tuple[Factors, float]]) -> tuple[Merged, ...]:
        """An effect is looked for until the first is found, so mostly in one weight."""
        nothing = not any(self._differs(name) for name in self._now)
        return tuple(
            Merged(
                factors.name,
                scale,
                factors.pairs,
                factors.modules,
                factors.text_encoder,
                factors.repeated,
                no_effect=nothing or (len(wanted) > 1 and not self._moves(factors, scale)),
            )
            for factors, scale in wanted
        )

    def _differs(self, name: str) -> bool:
        weight = self._parameters[name].data
        return not torch.equal(weight, self._base[name].to(weight.device))

    def _moves(self, factors: Factors, scale: float) -> bool:
        """Whether an adapter by itself has any effect before rounding."""
        return scale != 0 and any(
            bool(change.added(self._wide_base(name)).any())
            for name, change in factors.changes.items()
        )

    def _wide_base(self, name: str) -> Tensor:
        return self._base[name].to(self._parameters[name].device, torch.float32)


def _kept(weight: Tensor, base: Place) -> Tensor:
    if base == "device":
        return weight.clone()
    kept = torch.empty_like(weight, device="cpu", pin_memory=weight.is_cuda)
    return kept.copy_(weight)


def _planned(
    wanted: Sequence[tuple[Factors, float]],
) -> tuple[Mapping[str, list[Term]], dict[str, tuple[tuple[int, float], ...]]]:
    """For each parameter what is added to it, and a mark by which that is known again."""
    terms: dict[str, list[Term]] = defaultdict(list)
    marks: dict[str, tuple[tuple[int, float], ...]] = defaultdict(tuple)
    for factors, scale in wanted:
        if scale:
            for name, change in factors.changes.items():
                terms[name].append((change, scale))
                marks[name] += ((factors.identity, scale),)
    return terms, dict(marks)


# -- writing one weight --------------------------------------------------------


def _write_sum(weight: Tensor, base: Tensor, terms: list[Term]) -> None:
    """Any changes: added up in float32."""
    wide = base.to(torch.float32)
    total = wide.clone()
    for change, scale in terms:
        total.add_(change.added(wide), alpha=scale)
    weight.copy_(total)


def _write_product(weight: Tensor, base: Tensor, terms: list[tuple[LowRank, float]]) -> None:
    """Low ranks side by side: one product, accumulated in float32 and rounded once.

    Factors that the weight's type can't hold exactly, by their own type or by their share of
    the scale, are given as two numbers of it: one rounded, and what that lost.
    """
    scales = [change.scale * scale for change, scale in terms]
    common = _common(scales)
    ups: list[Tensor] = []
    downs: list[Tensor] = []
    for (change, _), scale in zip(terms, scales, strict=True):
        up = _pieces(change.up, scale / common, weight.dtype)
        down = _pieces(change.down, 1.0, weight.dtype)
        ups += [*up, *up[:1] * (len(down) - 1)]
        downs += [*down[:1] * len(up), *down[1:]]
    torch.addmm(base, torch.cat(ups, 1), torch.cat(downs), alpha=common, out=weight)


def _common(scales: list[float]) -> float:
    """The one that the most others are of by a power of two: it is given to the product."""
    some = [scale for scale in scales if scale] or [1.0]
    return max(some, key=lambda one: sum(_is_power_of_two(other / one) for other in some))


def _is_power_of_two(factor: float) -> bool:
    return abs(math.frexp(factor)[0]) == 0.5


def _pieces(matrix: Tensor, factor: float, dtype: torch.dtype) -> list[Tensor]:
    """The matrix times the factor, as a sum of matrices of a type."""
    if torch.promote_types(matrix.dtype, dtype) == dtype and _is_power_of_two(factor):
        exact = matrix.to(dtype)
        return [exact if factor == 1 else exact * factor]
    wide = matrix.to(torch.float32) * factor
    rounded = wide.to(dtype)
    return [rounded] if dtype == torch.float32 else [rounded, (wide - rounded).to(dtype)]
