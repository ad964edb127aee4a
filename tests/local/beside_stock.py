"""Each file of the corpus: what stock diffusers makes of it, and what merging does.

python -m tests.local.beside_stock
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from backends.local.factors import read_adapter
from backends.local.merging import Merger
from generation.errors import AdapterRefused
from tests.local.tiny import merged, stock, transformer, wide, write
from tests.standins.adapters import Adapter, corpus
from tests.standins.adapters.changes import Wide

TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Row:
    """`stock` and `ours` are the parameters changed as the reference says; None: it raised."""

    one: Adapter
    wanted: int
    stock: int | None
    stock_says: str
    ours: int | None
    ours_says: str


def as_trained(found: dict[str, Wide], base: dict[str, Wide], right: dict[str, Wide]) -> int:
    """How many of the parameters that should change are what they should be."""
    return sum(
        bool(np.allclose(found[name], right[name], atol=TOLERANCE, rtol=TOLERANCE))
        for name in right
        if not np.array_equal(right[name], base[name])
    )


def rows(folder: Path, adapters: Iterable[Adapter]) -> Iterator[Row]:
    model = transformer()
    base = wide(dict(model.named_parameters()))
    merger = Merger(model)
    for one in adapters:
        path = write(one, folder)
        right = merged(base, [(one, 1.0)]) if one.family == "Z-Image" else base
        wanted = sum(not np.array_equal(right[name], base[name]) for name in base)
        theirs, says = None, ""
        try:
            found = wide(stock(path, model))
            theirs = as_trained(found, base, right)
            silent = all(np.array_equal(found[name], base[name]) for name in base)
            says = "nothing applied, nothing said" if silent else ""
        except Exception as exc:  # whatever it is, it is what a user gets
            says = f"{type(exc).__name__}: {exc}"
        ours, reason = _ours(merger, path, base, right)
        yield Row(one, wanted, theirs, says, ours, reason)


def _ours(
    merger: Merger, path: Path, base: dict[str, Wide], right: dict[str, Wide]
) -> tuple[int | None, str]:
    try:
        factors = read_adapter(path, merger.shapes).factors()
    except AdapterRefused as exc:
        return None, exc.cause
    with merger.applied([(factors, 1.0)]) as (told,):
        found = {**base, **wide(merger.weights)}
    left = f"{len(told.text_encoder)} keys of a text encoder left out" if told.text_encoder else ""
    return as_trained(found, base, right), left


def table(found: list[Row]) -> str:
    lines = [f"{'adapter':<30}{'layout':<20}{'stock':<8}{'ours':<8}what is said"]
    for row in found:
        theirs = "error" if row.stock is None else f"{row.stock}/{row.wanted}"
        ours = "refused" if row.ours is None else f"{row.ours}/{row.wanted}"
        stock_says = f"stock: {' '.join(row.stock_says.split())[:70]}" if row.stock_says else ""
        says = "; ".join(part for part in (stock_says, row.ours_says[:90]) if part)
        lines.append(f"{row.one.name:<30}{row.one.layout:<20}{theirs:<8}{ours:<8}{says}")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        print(table(list(rows(Path(scratch), corpus()))))
