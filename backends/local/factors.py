"""A file's keys → the changes of a transformer's weights, complete or refused by name."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from backends.local.changes import Change, Difference, Hadamard, Kronecker, LowRank, Renormed, Side
from backends.local.matching import Group, Mismatch, by_column, match
from backends.local.tensorfile import Slot, TensorFile, read_tensors
from generation.errors import AdapterRefused
from lora_format.deltas import Shape

_DIFFUSERS: Final = "transformer."
_identities = itertools.count()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the change of one parameter is made from the file's tensors.

    `scale` is alpha / rank; `rows` are the parameter's in the tensors, whose change has
    `height` rows.
    """

    slots: Mapping[str, Slot]
    scale: float
    rows: slice
    height: int

    def change(self, body: Tensor) -> Change:
        parts = {part: slot.of(body) for part, slot in self.slots.items()}
        plain = self._plain(parts)
        if "dora_scale" not in parts:
            return plain
        return Renormed(plain, self._lengths(parts["dora_scale"]))

    def _plain(self, parts: Mapping[str, Tensor]) -> LowRank | Kronecker | Hadamard | Difference:
        rows = self.rows
        if "down" in parts:
            return LowRank(parts["up"][rows], parts["down"], self.scale)
        if "hada_w1_a" in parts:
            first, second = (_side(parts, f"hada_w{n}") for n in (1, 2))
            return Hadamard((first[0][rows], first[1]), (second[0][rows], second[1]), self.scale)
        if "diff" in parts:
            return Difference(parts["diff"][rows])
        return Kronecker(_side(parts, "lokr_w1"), _side(parts, "lokr_w2"), self.scale, rows)

    def _lengths(self, lengths: Tensor) -> Tensor:
        if by_column(lengths.shape, self.height):
            return lengths.view(1, -1)
        return lengths.view(-1, 1)[self.rows]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """An adapter on a device: the change of each parameter, by the parameter's name.

    `identity` differs for each reading of a file. `pairs` are the modules in the file, all of
    which are applied; `text_encoder` and `repeated` are the keys that aren't: those of a text
    encoder, and those of modules that are in the file under diffusers' own names too.
    """

    name: str
    identity: int
    changes: Mapping[str, Change]
    pairs: int
    text_encoder: tuple[str, ...]
    repeated: tuple[str, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted({name.rpartition(".")[0] for name in self.changes}))


@dataclass(frozen=True, slots=True, eq=False)
class AdapterFile:
    """An adapter on the host, checked against a transformer."""

    file: TensorFile
    recipes: Mapping[str, Recipe]
    pairs: int
    text_encoder: tuple[str, ...]
    repeated: tuple[str, ...]
    identity: int = field(default_factory=lambda: next(_identities))

    @property
    def size(self) -> int:
        """In bytes, on the host as on a device."""
        return int(self.file.body.nbytes)

    def factors(self, device: torch.device | str = "cpu") -> Factors:
        """Brought to a device by one copy."""
        body = self.file.body.to(device, non_blocking=True)
        changes = {name: recipe.change(body) for name, recipe in self.recipes.items()}
        return Factors(
            self.file.name, self.identity, changes, self.pairs, self.text_encoder, self.repeated
        )


def read_adapter(path: Path, shapes: Mapping[str, Shape], name: str = "") -> AdapterFile:
    """Read an adapter for a transformer whose parameters have these shapes.

    Every key is accounted for. `name` is what an error calls the file, if not its own name.

    Raises:
        AdapterRefused: no safetensors file, no adapter for this model, or one whose keys or
            numbers can't all be applied; the reason names them.
        AdapterUnavailable: the file can't be read.
    """
    file = read_tensors(path, name or path.name)
    try:
        return _made(file, shapes)
    except Mismatch as exc:
        raise AdapterRefused(name=file.name, reason=str(exc)) from exc


def _made(file: TensorFile, model: Mapping[str, Shape]) -> AdapterFile:
    found = match(file.shapes, model)
    alphas = _Alphas.stated(file.metadata)
    recipes = {name: r for group in found.used for name, r in _recipes(group, file, model, alphas)}
    return AdapterFile(file, recipes, len(found.used), found.text_encoder, found.repeated)


# -- the recipes ---------------------------------------------------------------


def _recipes(
    group: Group, file: TensorFile, model: Mapping[str, Shape], alphas: _Alphas
) -> Iterator[tuple[str, Recipe]]:
    """Of each parameter that the group's keys change, by its name."""
    slots = {part: file.slots[key] for part, key in group.keys.items()}
    for part, slot in slots.items():
        _check_numbers(group.keys[part], slot, file.body, integers=part == "alpha")
    delta = group.delta(file.shapes)
    scale = _scale(group, slots, file.body, delta.rank if delta else None, alphas)
    bias = slots.pop("diff_b", None)
    slots.pop("alpha", None)
    height = sum(model[f"{target}.weight"][0] for target in group.targets)
    start = 0
    for target in group.targets:
        stop = start + model[f"{target}.weight"][0]
        yield f"{target}.weight", Recipe(slots, scale, slice(start, stop), height)
        start = stop
    if bias:
        yield f"{group.targets[0]}.bias", Recipe({"diff": bias}, 1.0, slice(None), height)


def _check_numbers(key: str, slot: Slot, body: Tensor, integers: bool) -> None:
    if not (slot.dtype.is_floating_point or integers):
        raise Mismatch(f"{key!r} holds whole numbers")
    total = slot.of(body).sum(dtype=torch.float64 if slot.dtype.itemsize == 8 else torch.float32)
    if not math.isfinite(total):  # one number that isn't makes the sum so
        raise Mismatch(f"{key!r} holds numbers that aren't finite")


def _scale(
    group: Group, slots: Mapping[str, Slot], body: Tensor, rank: int | None, alphas: _Alphas
) -> float:
    """alpha / rank; 1 where nothing states an alpha, or where the method has no rank."""
    if rank is None:
        return 1.0
    if "alpha" in slots:
        return float(slots["alpha"].of(body)) / rank
    return alphas.scale(group.targets[0], rank) if group.prefix == _DIFFUSERS else 1.0


@dataclass(frozen=True, slots=True)
class _Alphas:
    """What diffusers' own training writes into the metadata instead of alpha keys.

    That is PEFT's `LoraConfig`; without it the scale is 1.
    """

    alpha: float | None = None
    by_module: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    @staticmethod
    def stated(metadata: Mapping[str, str]) -> _Alphas:
        try:
            config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
            alpha = config.get(f"{_DIFFUSERS}lora_alpha")
            pattern = config.get(f"{_DIFFUSERS}alpha_pattern") or {}
            by_root = config.get(f"{_DIFFUSERS}use_rslora") is True
            return _Alphas(
                None if alpha is None else _finite(alpha),
                {module.removeprefix("^"): _finite(one) for module, one in pattern.items()},
                by_root,
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as exc:
            raise Mismatch("its metadata states no alpha that can be read") from exc

    def scale(self, module: str, rank: int) -> float:
        named = (a for name, a in self.by_module.items() if f".{module}".endswith(f".{name}"))
        alpha = next(named, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def _finite(stated: float) -> float:
    if not math.isfinite(float(stated)):
        raise ValueError(stated)
    return float(stated)


def _side(parts: Mapping[str, Tensor], name: str) -> Side:
    return (parts[name],) if name in parts else (parts[f"{name}_a"], parts[f"{name}_b"])
