"""The numbers of a safetensors file, in memory as one piece, which one copy brings to a device."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

import torch

from generation.errors import AdapterRefused, AdapterUnavailable
from lora_format.deltas import Shape
from lora_format.header import FIRST_READ, Header, header_size, parse_header

_LENGTH: Final = 8
_TYPES: Final = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32,
}  # fmt: skip
"""Integers are only met as an alpha."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor's bytes are in the body, and what they mean."""

    dtype: torch.dtype
    shape: Shape
    start: int
    stop: int

    def of(self, body: torch.Tensor) -> torch.Tensor:
        """A view, on the body's device; eight-bit numbers become bfloat16, which loses nothing."""
        raw = body[self.start : self.stop]
        if raw.storage_offset() % self.dtype.itemsize:
            raw = raw.clone()  # a view must begin at a multiple of its numbers' size
        numbers = raw.view(self.dtype).view(self.shape)
        return numbers.to(torch.bfloat16) if self.dtype.itemsize == 1 else numbers


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A whole file on the host. `body` are its bytes behind the header, pinned where that helps."""

    name: str
    metadata: Mapping[str, str]
    slots: Mapping[str, Slot]
    body: torch.Tensor

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: slot.shape for name, slot in self.slots.items()}


def read_tensors(path: Path, name: str) -> TensorFile:
    """Read and check all of a file; `name` is what an error calls it.

    Raises:
        AdapterRefused: not a safetensors file, or numbers that can't be merged.
        AdapterUnavailable: the file can't be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(FIRST_READ)
            start += file.read(max(0, _LENGTH + header_size(start, name) - len(start)))
            header = parse_header(start, name=name, file_bytes=size)
            file.seek(header.header_bytes)
            body = _read_body(file, size - header.header_bytes)
    except OSError as exc:
        raise AdapterUnavailable(name=name, reason=exc.strerror or str(exc)) from exc
    slots = _slots(header, start[_LENGTH : header.header_bytes], name)
    return TensorFile(name, header.metadata, slots, body)


def _read_body(file: BufferedReader, size: int) -> torch.Tensor:
    """Read, not mapped: a mapped file that shrinks ends the whole process."""
    body = torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    view = memoryview(body.numpy())
    while view:
        count = file.readinto(view)
        if not count:
            raise OSError("it became shorter while it was read")
        view = view[count:]
    return body


def _slots(header: Header, raw: bytes, name: str) -> dict[str, Slot]:
    """The header was checked: what is missing in it is only where each tensor is."""
    entries = json.loads(raw)
    slots = {}
    for key, tensor in header.tensors.items():
        if tensor.dtype not in _TYPES:
            raise AdapterRefused(
                name=name, reason=f"numbers of type {tensor.dtype} can't be merged"
            )
        start, stop = entries[key]["data_offsets"]
        slots[key] = Slot(_TYPES[tensor.dtype], tensor.shape, start, stop)
    return slots
