"""The three modes: `none`, `regular` and `high`, as views of one transformer.

`none` is diffusers' own eager code. `regular` computes the same with the best exact kernels that
proved themselves here; where nothing can be compiled (on a processor, or streamed from main
memory) those are the eager ones. `high` has its main layers in eight bits. All three share the
parameters that adapters are merged into.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.local.compiled import view
from backends.local.job import Stop
from backends.local.kernels import High, Kernels, Say, Tools, Workshop
from backends.local.loading import Loaded
from backends.local.validation import UNVALIDATED, validated
from generation.request import Acceleration


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a job runs: the mode that it really is, and what a person should know of it."""

    transformer: Any
    mode: Acceleration
    warnings: tuple[str, ...] = ()


class Modes:
    """The modes of a loaded transformer. `data` is the folder of validation records."""

    def __init__(
        self, loaded: Loaded, data: Path | None = None, tools: Tools | None = None
    ) -> None:
        self._loaded = loaded
        self._data = data
        self._tools = tools or Tools()
        self._kernels: Kernels | None = None

    def warm_up(self, say: Say, stop: Stop) -> None:
        """Make the kernels, once; `say` hears what is being made.

        Raises:
            Stopped: `stop` said so; the next call begins anew.
        """
        if self._kernels is None:
            self._kernels = Workshop(self._loaded, self._tools).build(say, stop)

    def choose(self, asked: Acceleration) -> Chosen:
        """What was asked for, or the best there is, with the reason; call `warm_up` before."""
        if asked == "none":
            return Chosen(self._loaded.pipe.transformer, "none")
        if asked == "high" and self._ready.high is not None:
            return self._high(self._ready.high)
        if asked == "regular":
            return self._regular()
        regular = self._regular()
        missing = (
            f"Acceleration 'high' isn't to be had here: {self._ready.no_high}. 'regular' was used."
        )
        return Chosen(regular.transformer, "regular", (missing, *regular.warnings))

    def written(self, names: Collection[str]) -> None:
        """These parameters of the transformer are new: `high` follows when it is next chosen."""
        if self._ready.high is not None:
            self._ready.high.stale.update(names)

    def shrink(self) -> bool:
        """Give back what eight bits and recordings take of the GPU; False if that is nothing."""
        if self._kernels is None:
            return False
        recordings = [one.replays for one in self._kernels.regions.values() if one.replays]
        held = bool(recordings) or self._kernels.high is not None
        for one in recordings:
            one.clear()
        if self._kernels.high is not None:
            self._kernels.high = None
            self._kernels.no_high = "memory ran out, and it gave its own back"
        return held

    @property
    def _ready(self) -> Kernels:
        assert self._kernels is not None
        return self._kernels

    def _regular(self) -> Chosen:
        eager = self._loaded.pipe.transformer
        if self._tools.why_not_compiled(self._loaded):  # a placement may have become smaller
            return Chosen(eager, "regular")
        return Chosen(view(eager, self._ready.regions), "regular", self._left_out)

    def _high(self, high: High) -> Chosen:
        high.weights.follow(high.stale)
        high.stale.clear()
        regions = {**self._ready.regions, "layers": high.region}
        proven = validated(self._data, self._loaded.folder)
        warnings = self._left_out if proven else (UNVALIDATED, *self._left_out)
        return Chosen(view(self._loaded.pipe.transformer, regions), "high", warnings)

    @property
    def _left_out(self) -> tuple[str, ...]:
        return tuple(
            f"Not accelerated here: {what} ({why})." for what, why in self._ready.left_out.items()
        )
