"""What an adapter file is, told from its header: method, layout, family, target modules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypedDict, TypeVar

from lora_format.deltas import Delta, Kind, Shape, delta_of, kind_of
from lora_format.families import (
    LUMINA,
    ZIMAGE,
    fits_module,
    has_bias,
    is_lumina,
    other_family,
    width_of,
    zimage_modules,
)
from lora_format.header import Header, TensorInfo
from lora_format.layouts import PLAIN, Key, layout_of, layout_of_no_adapter, split_key
from lora_format.stock import Stock, stock_result
from lora_format.trainer import (
    base_model,
    is_training_adapter,
    stated_alpha,
    trainer_notes,
    trigger_words,
)

__all__ = ["Anatomy", "Kind", "examine"]

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One adapter file, as its header describes it. `layout` of what is none says what it is.

    `modules` are diffusers' names where the family is Z-Image, else the file's
    own. `unmatched` are keys that nothing here can apply; keys of a text
    encoder are only counted. `by_diffusers` are the modules that stock
    diffusers applies as trained; `diffusers_fails` if loading it raises there.
    `alpha` is what the metadata states, None where it doesn't.
    """

    kind: Kind
    layout: str
    family: str | None
    rank: int | None  # the most common one
    ranks: tuple[int, ...]
    alpha: float | None
    modules: tuple[str, ...]
    unmatched: tuple[str, ...]
    text_encoder: int
    dtype: str  # of most of the numbers
    parameters: int
    trainer: Mapping[str, str]
    trigger_words: tuple[str, ...]
    base_model: str | None
    by_diffusers: tuple[str, ...] = ()
    diffusers_fails: bool = False


@dataclass
class _Change:
    """The keys of one module in the file, and what they amount to."""

    prefix: str
    module: str
    names: list[str] = field(default_factory=list)
    parts: dict[str, Shape] = field(default_factory=dict)
    spare: list[str] = field(default_factory=list)  # another key of a part that is there

    def add(self, key: Key, shape: Shape) -> None:
        (self.spare if key.part in self.parts else self.names).append(key.name)
        self.parts.setdefault(key.part, shape)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        return zimage_modules(self.module)

    @cached_property
    def delta(self) -> Delta | None:
        return delta_of(self.parts)

    @property
    def shape(self) -> Shape | None:
        return self.delta.shape if self.delta else None

    def fits(self, width: int | None) -> bool:
        """Whether it can be added to weights of Z-Image."""
        if self.shape is None or not self.targets:
            return False
        bias_fits = "diff_b" not in self.parts or has_bias(self.targets[0])
        return bias_fits and fits_module(self.targets, self.shape, width)


def examine(header: Header) -> Anatomy:
    """Everything that the header tells. Any header has some anatomy; nothing raises."""
    keys = [split_key(name) for name in header.tensors]
    text_encoder = sum(key.of_text_encoder and key.part not in PLAIN for key in keys)
    plain = [key for key in keys if key.part in PLAIN]
    adapting = [key for key in keys if key.part not in PLAIN and not key.of_text_encoder]
    if len(plain) > len(adapting) + text_encoder or len(keys) == len(plain):
        return _no_adapter(header, keys)
    changes = _changes(adapting, header.tensors)
    family, width = _family(changes)
    fitting = [change for change in changes if change.fits(width)] if family == ZIMAGE else []
    stock = stock_result(header.tensors) if family == ZIMAGE else Stock(frozenset())
    ranks = [change.delta.rank for change in changes if change.delta and change.delta.rank]
    training = is_training_adapter(header.metadata)
    return Anatomy(
        kind=Kind.NOT_AN_ADAPTER if training else _kind(changes),
        layout="training adapter" if training else _layout(changes),
        family=family,
        rank=_most_common(ranks),
        ranks=tuple(sorted(set(ranks))),
        modules=_modules(family, changes, fitting),
        unmatched=_unmatched(family, changes, fitting, plain),
        text_encoder=text_encoder,
        by_diffusers=tuple(sorted(stock.applied)),
        diffusers_fails=stock.fails,
        **_described(header),
    )


class _Described(TypedDict):
    """What is told of any file in the same way."""

    alpha: float | None
    dtype: str
    parameters: int
    trainer: Mapping[str, str]
    trigger_words: tuple[str, ...]
    base_model: str | None


def _described(header: Header) -> _Described:
    counts: Counter[str] = Counter()
    for tensor in header.tensors.values():
        counts[tensor.dtype] += math.prod(tensor.shape)
    return {
        "alpha": stated_alpha(header.metadata),
        "dtype": max(counts, key=counts.__getitem__, default=""),
        "parameters": counts.total(),
        "trainer": trainer_notes(header.metadata),
        "trigger_words": trigger_words(header.metadata),
        "base_model": base_model(header.metadata),
    }


def _no_adapter(header: Header, keys: list[Key]) -> Anatomy:
    family, _ = _family(_changes(keys, header.tensors))
    return Anatomy(
        kind=Kind.NOT_AN_ADAPTER,
        layout=layout_of_no_adapter(header.tensors),
        family=family,
        rank=None,
        ranks=(),
        modules=(),
        unmatched=(),
        text_encoder=0,
        **_described(header),
    )


def _changes(keys: Iterable[Key], tensors: Mapping[str, TensorInfo]) -> list[_Change]:
    """The keys, gathered by module."""
    changes: dict[tuple[str, str], _Change] = {}
    for key in keys:
        change = changes.setdefault((key.prefix, key.module), _Change(key.prefix, key.module))
        change.add(key, tensors[key.name].shape)
    return list(changes.values())


def _family(changes: list[_Change]) -> tuple[str | None, int | None]:
    """The family, and for Z-Image's names the width of the model that it was made for."""
    named = [change for change in changes if change.targets]
    if not named or 2 * len(named) < len(changes):
        return other_family({change.module: change.shape for change in changes}), None
    widths = [width_of(change.targets, change.shape) for change in named if change.shape]
    width = _most_common([width for width in widths if width])
    return (LUMINA if is_lumina(width) else ZIMAGE), width


def _kind(changes: list[_Change]) -> Kind:
    """The method of most modules; a file for the text encoder only counts as a LoRA."""
    kinds = [kind for change in changes if (kind := kind_of(change.parts))]
    return _most_common(kinds) or Kind.LORA


def _layout(changes: list[_Change]) -> str:
    """A fused module next to its three parts only repeats them, as some trainers do."""
    single = {change.targets[0] for change in changes if len(change.targets) == 1}
    fused = any(len(change.targets) > 1 and not single >= {*change.targets} for change in changes)
    return layout_of((change.prefix for change in changes), fused)


def _modules(family: str | None, changes: list[_Change], fitting: list[_Change]) -> tuple[str, ...]:
    if family == ZIMAGE:
        return tuple(sorted({target for change in fitting for target in change.targets}))
    return tuple(sorted({change.module for change in changes})) if family else ()


def _unmatched(
    family: str | None, changes: list[_Change], fitting: list[_Change], plain: list[Key]
) -> tuple[str, ...]:
    """Only Z-Image's modules are all known here; of another family none is called unmatched."""
    if family not in (ZIMAGE, None):
        return ()
    fit = {id(change) for change in fitting}
    lost = [name for change in changes if id(change) not in fit for name in change.names]
    spare = [name for change in changes for name in change.spare]
    return tuple(sorted([*lost, *spare, *(key.name for key in plain)]))


def _most_common(values: list[T]) -> T | None:
    return Counter(values).most_common(1)[0][0] if values else None
