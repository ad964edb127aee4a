"""Which keys of a file change which weights of a transformer; every key is accounted for.

Only names and shapes are looked at. What can't be matched is an error that names it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lora_format.deltas import Delta, Shape, delta_of
from lora_format.families import LUMINA, is_lumina, other_family, width_of, zimage_modules
from lora_format.layouts import PLAIN, Key, layout_of_no_adapter, split_key

_SHOWN: Final = 3


class Mismatch(Exception):
    """Why a file can't be merged: a reason in plain words, for its refusal."""


@dataclass
class Group:
    """The keys of one module in the file."""

    prefix: str
    module: str
    keys: dict[str, str] = field(default_factory=dict)  # the whole key by its part
    spare: list[str] = field(default_factory=list)  # another key of a part that is there

    def add(self, key: Key) -> None:
        if key.part in self.keys:
            self.spare.append(key.name)
        self.keys.setdefault(key.part, key.name)

    @property
    def targets(self) -> tuple[str, ...]:
        return zimage_modules(self.module)

    @property
    def own(self) -> bool:
        """Whether it bears diffusers' name, and not the original model's."""
        return [name.replace(".", "_") for name in self.targets] == [self.module.replace(".", "_")]

    def delta(self, shapes: Mapping[str, Shape]) -> Delta | None:
        return delta_of({part: shapes[key] for part, key in self.keys.items()})

    def fits(self, shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> bool:
        """Whether its change is defined, and has the shape of the model's weights."""
        delta = self.delta(shapes)
        weights = [model.get(f"{target}.weight", ()) for target in self.targets]
        if delta is None or not weights or not all(weights):
            return False
        rows = sum(weight[0] for weight in weights)
        if delta.shape != (rows, *weights[0][1:]):
            return False
        return self._bias_fits(shapes, model) and self._lengths_fit(shapes, delta.shape)

    def _bias_fits(self, shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> bool:
        bias = self.keys.get("diff_b")
        return bias is None or shapes[bias] == model.get(f"{self.targets[0]}.bias")

    def _lengths_fit(self, shapes: Mapping[str, Shape], whole: Shape) -> bool:
        """DoRA's, in one line; those of columns only where the weight isn't one of three."""
        key = self.keys.get("dora_scale")
        if key is None:
            return True
        lengths = shapes[key]
        across = by_column(lengths, whole[0])
        in_line = len(whole) == 2 and math.prod(lengths) == max(lengths) == whole[across]
        return bool(in_line) and not (across and len(self.targets) > 1)


@dataclass(frozen=True, slots=True)
class Match:
    """`used` change the model, all of their keys. The other keys of the file: `text_encoder`
    are a text encoder's; `repeated` are of modules that `used` has under diffusers' names."""

    used: tuple[Group, ...]
    text_encoder: tuple[str, ...]
    repeated: tuple[str, ...]


def match(shapes: Mapping[str, Shape], model: Mapping[str, Shape]) -> Match:
    """Match a file's tensors, given by their shapes, with a model's parameters, likewise.

    Raises:
        Mismatch: not all of them belong to changes that are complete and fit.
    """
    keys = [split_key(name) for name in shapes]
    text_encoder = {key.name for key in keys if key.of_text_encoder and key.part not in PLAIN}
    groups = _groups(key for key in keys if key.name not in text_encoder)
    if text_encoder and not groups:
        raise Mismatch("it changes only a text encoder, which isn't touched here")
    _check_all_fit(groups, shapes, model)
    used, repeated = _without_repeated(groups)
    return Match(tuple(used), tuple(sorted(text_encoder)), repeated)


def by_column(lengths: Shape, rows: int) -> bool:
    """DoRA's lengths are one per row, unless they can't be."""
    return lengths[:1] != (rows,)


def _groups(keys: Iterable[Key]) -> list[Group]:
    groups: dict[tuple[str, str], Group] = {}
    for key in keys:
        group = groups.setdefault((key.prefix, key.module), Group(key.prefix, key.module))
        group.add(key)
    return list(groups.values())


def _check_all_fit(
    groups: list[Group], shapes: Mapping[str, Shape], model: Mapping[str, Shape]
) -> None:
    lost = [n for g in groups if not g.fits(shapes, model) for n in g.keys.values()]
    lost += [name for group in groups for name in group.spare]
    count = sum(len(group.keys) + len(group.spare) for group in groups)
    if len(lost) == count:
        _check_kind(groups, shapes)
    if lost:
        raise Mismatch(f"{len(lost)} of its {count} keys can't be merged: {named(sorted(lost))}")


def _check_kind(groups: list[Group], shapes: Mapping[str, Shape]) -> None:
    """Of a file without any fitting change: what it is instead, where that can be told."""
    if all(part in PLAIN for group in groups for part in group.keys):
        raise Mismatch(f"it holds no adapter ({layout_of_no_adapter(shapes)})")
    deltas = {group.module: group.delta(shapes) for group in groups}
    family = other_family({name: delta.shape if delta else None for name, delta in deltas.items()})
    if any(_is_lumina(group.targets, deltas[group.module]) for group in groups):
        family = LUMINA
    if family:
        raise Mismatch(f"it is made for {family}, not for Z-Image")


def _is_lumina(targets: tuple[str, ...], delta: Delta | None) -> bool:
    return bool(targets and delta and is_lumina(width_of(targets, delta.shape)))


def _without_repeated(groups: list[Group]) -> tuple[list[Group], tuple[str, ...]]:
    """Some trainers write modules twice: diffusers takes those by its own names, and so do we."""
    own = {target for group in groups if group.own for target in group.targets}
    used = [group for group in groups if group.own or not own.issuperset(group.targets)]
    taken = {name for group in used for name in group.keys.values()}
    counts = Counter(target for group in used for target in group.targets)
    if twice := [target for target, count in counts.items() if count > 1]:
        raise Mismatch(f"it changes a module twice: {named(twice)}")
    every = (name for group in groups for name in group.keys.values())
    return used, tuple(sorted(name for name in every if name not in taken))


def named(names: list[str]) -> str:
    """The first few of them."""
    more = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
