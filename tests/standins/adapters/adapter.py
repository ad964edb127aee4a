"""One adapter file of the corpus, and all that is known of it because of how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from tests.standins.adapters.changes import Change, Method, Spec, Wide, lora, merge
from tests.standins.adapters.dialects import Dialect
from tests.standins.adapters.model import ATTENTION, FEED_FORWARD, TINY, Size, linear_shape, targets
from tests.standins.adapters.tensors import Tensor, body, body_size, header, write_sparse

FITS, IN_PART, OTHER_FAMILY = "fits", "fits in part", "another family"
NOT_AN_ADAPTER, UNKNOWN = "not an adapter", "can't tell"
PLAIN = Spec()
ALL = ("",)
"""Every module ends with nothing."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A file and what a reader should find in it.

    `hosted` is what stock diffusers 0.42 makes of it, `left_out` the modules (diffusers' names)
    that it doesn't apply; `local` is what merging makes of it.
    """

    name: str
    kind: str
    layout: str
    changes: tuple[Change, ...] = ()
    dialect: Dialect | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # by the whole key
    metadata: Mapping[str, str] = field(default_factory=dict)
    family: str | None = "Z-Image"
    dtype: str = "BF16"
    alpha: float | None = None
    base_model: str | None = None
    trigger_words: tuple[str, ...] = ()
    text_encoder: int = 0
    unmatched: tuple[str, ...] = ()
    hosted: str = FITS
    local: str = FITS
    demo: str = FITS
    left_out: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted({name for change in self.changes for name in change.modules}))

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({c.rank for c in self.changes if c.rank is not None}))

    @property
    def rank(self) -> int | None:
        """The most common one."""
        all_of_them = [c.rank for c in self.changes if c.rank is not None]
        return max(all_of_them, key=all_of_them.count, default=None)

    @property
    def fit(self) -> dict[str, str]:
        """The verdict by backend."""
        return {"hosted": self.hosted, "local": self.local, "demo": self.demo}

    @property
    def tensors(self) -> dict[str, Tensor]:
        own = {
            self.dialect.key(change.written, part): tensor
            for change in self.changes
            for part, tensor in change.parts.items()
            if self.dialect is not None
        }
        return {**own, **self.extra}

    def header(self) -> bytes:
        """The file's beginning, without the numbers."""
        return header(self.tensors, self.metadata)

    def size(self) -> int:
        """Of the whole file in bytes."""
        return len(self.header()) + body_size(self.tensors)

    def data(self) -> bytes:
        """The whole file, its numbers made now."""
        return self.header() + b"".join(body(self.tensors))

    def write_sparse(self, path: Path) -> None:
        """The header and a hole of the right size: any width costs nothing."""
        write_sparse(path, self.header(), self.size())

    def merged(self, weights: Mapping[str, Wide], scale: float = 1.0) -> dict[str, Wide]:
        """The changed weights in float64, by their names, at a scale: the reference."""
        return dict(merge(self.changes, weights, scale))


def changes(
    dialect: Dialect, modules: tuple[str, ...], size: Size, method: Method, spec: Spec
) -> tuple[Change, ...]:
    """One change of the same kind for each module that the dialect writes."""
    return tuple(
        method(written, group, _stacked(group, size), spec)
        for written, group in dialect.written(modules).items()
    )


def _stacked(group: tuple[str, ...], size: Size) -> tuple[int, int]:
    """The weight's shape, of fused modules one above the other."""
    rows, columns = linear_shape(group[0], size)
    return rows * len(group), columns


class _Known(TypedDict, total=False):
    """Fields of `Adapter` that a maker takes as they are."""

    layout: str
    extra: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    alpha: float | None
    base_model: str | None
    trigger_words: tuple[str, ...]
    text_encoder: int
    unmatched: tuple[str, ...]
    hosted: str
    local: str
    demo: str


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes Z-Image adapters at one size."""

    size: Size = TINY

    def __call__(
        self,
        name: str,
        dialect: Dialect,
        method: Method = lora,
        *,
        kind: str = "LoRA",
        spec: Spec = PLAIN,
        parts: tuple[str, ...] = ATTENTION + FEED_FORWARD,
        refiners: bool = False,
        others: tuple[str, ...] = (),
        more: tuple[Change, ...] = (),
        drops: tuple[str, ...] = (),
        **known: Unpack[_Known],
    ) -> Adapter:
        """`drops` are endings of the modules that stock diffusers leaves out."""
        modules = targets(self.size, parts, refiners) + others
        made = changes(dialect, modules, self.size, method, spec) + more
        all_of_them = sorted({module for change in made for module in change.modules})
        left_out = tuple(m for m in all_of_them if drops and m.endswith(drops))
        known.setdefault("layout", dialect.layout)
        known.setdefault("hosted", IN_PART if left_out else FITS)
        return Adapter(
            name, kind, changes=made, dialect=dialect, dtype=spec.dtype, left_out=left_out, **known
        )
