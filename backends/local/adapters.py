"""The engine's adapters: files in, merged weights and a true account of them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from backends.local.factors import AdapterFile, Factors, read_adapter
from backends.local.merging import Merged, Merger, Place
from backends.local.recent import Recent
from generation.errors import AdapterUnavailable
from generation.lora_file import LoraFile
from generation.result import AppliedLora

GIB: Final = 2**30
Version = tuple[str, int, int]


class MergedAdapters:
    """Adapters of one transformer; keeps those used last, at most so many bytes of them.

    `base` is where the pristine weights are: by default beside the parameters where that
    leaves `spare` bytes of the GPU free, else in main memory.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        base: Place | None = None,
        on_device: int = 2 * GIB,
        on_host: int = 4 * GIB,
        spare: int = 6 * GIB,
    ) -> None:
        self._merger = Merger(transformer, base or _place(transformer, spare))
        self._files: Recent[Version, AdapterFile] = Recent(on_host)
        self._factors: Recent[tuple[int, str], Factors] = Recent(on_device)
        self.merged: tuple[Merged, ...] = ()

    def apply(self, wanted: Sequence[tuple[LoraFile, float]]) -> tuple[AppliedLora, ...]:
        """Make these, and no others, part of the weights.

        `applied` is False of an adapter that changes nothing.

        Raises:
            AdapterRefused, AdapterUnavailable: the weights are the base's.
        """
        try:
            found = [(self._brought(lora), scale) for lora, scale in wanted]
            self.merged = self._merger.set(found)
        except BaseException:
            self.restore()
            raise
        return tuple(
            AppliedLora(
                path=lora.path, scale=scale, file=lora.file, sha=lora.sha, applied=not one.no_effect
            )
            for (lora, scale), one in zip(wanted, self.merged, strict=True)
        )

    def restore(self) -> None:
        """The base's own weights, bit for bit."""
        self.merged = ()
        self._merger.restore()

    def take_written(self) -> frozenset[str]:
        """The transformer's parameters that were written since this was last called."""
        return self._merger.take_written()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the adapters that are applied now."""
        idle = (f"{one.name!r} changes nothing at {one.scale:g}." for one in self._idle())
        partial = (
            f"{one.name!r} holds {len(one.text_encoder)} keys of a text encoder; they are left out."
            for one in self.merged
            if one.text_encoder
        )
        return (*idle, *partial)

    def _idle(self) -> list[Merged]:
        return [one for one in self.merged if one.no_effect]

    def shrink(self) -> None:
        """Leave the device's memory to others: only the merged weights stay where they are."""
        self._factors.clear()
        self._merger.move_base_to_host()

    def _brought(self, lora: LoraFile) -> Factors:
        """To the device, from there if it is there."""
        if lora.local is None:
            raise AdapterUnavailable(name=lora.path, reason="it is no file on this machine")
        file = self._read(lora.local, lora.file or lora.local.name)
        device = self._merger.device
        key = (file.identity, str(device))
        return self._factors.get(key, file.size, lambda: file.factors(device))

    def _read(self, path: Path, name: str) -> AdapterFile:
        try:
            found = os.stat(path)
        except OSError as exc:
            raise AdapterUnavailable(name=name, reason=exc.strerror or str(exc)) from exc
        version = (str(path), found.st_mtime_ns, found.st_size)
        shapes = self._merger.shapes
        return self._files.get(version, found.st_size, lambda: read_adapter(path, shapes, name))


def _place(transformer: nn.Module, spare: int) -> Place:
    weights = list(transformer.parameters())
    device = weights[0].device
    if device.type != "cuda":
        return "device"
    needed = sum(weight.nbytes for weight in weights)
    return "device" if torch.cuda.mem_get_info(device)[0] >= needed + spare else "host"
