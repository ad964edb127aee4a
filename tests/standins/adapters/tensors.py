"""A small safetensors writer: numpy only, and tensors that are described without being made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Normally distributed numbers that follow from the seed, or one number everywhere.

    They are made when they are asked for, so a tensor of the real width costs nothing until then.
    """

    dtype: str
    shape: tuple[int, ...]
    seed: int = 0
    deviation: float = 0.1
    constant: float | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * BYTES[self.dtype]

    def encoded(self) -> bytes:
        return encode(self.dtype, self._exact())

    def values(self) -> Values:
        """The numbers as they are stored: rounded to the type."""
        return decode(self.dtype, self.encoded()).reshape(self.shape)

    def _exact(self) -> Values:
        if self.constant is not None:
            return np.full(self.shape, self.constant, np.float32)
        numbers = np.random.default_rng(self.seed).standard_normal(self.shape, np.float32)
        return numbers * np.float32(self.deviation)


Tensors = Mapping[str, Tensor]


def header(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """What comes before the numbers: eight bytes of length, then JSON padded to eight bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        ends = offset + tensor.size
        shape = list(tensor.shape)
        entries[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [offset, ends]}
        offset = ends
    return framed(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode())


def framed(text: bytes) -> bytes:
    """A header's text with its length in front."""
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded


def body(tensors: Tensors) -> Iterator[bytes]:
    return (tensor.encoded() for tensor in tensors.values())


def body_size(tensors: Tensors) -> int:
    return sum(tensor.size for tensor in tensors.values())


def write_sparse(path: Path, start: bytes, size: int) -> None:
    """A file of `size` bytes that begins with `start`; the rest is a hole that reads as zeros."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def encode(dtype: str, values: Values) -> bytes:
    """Little-endian bytes, rounded to the nearest."""
    if dtype == "BF16":
        bits = values.astype("<f4").view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    if dtype == "F8_E4M3":
        return _nearest_float8(values).tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def decode(dtype: str, raw: bytes) -> Values:
    """The inverse of `encode`, in one dimension."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return _float8_values()[np.frombuffer(raw, np.uint8)]
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)


@cache
def _float8_values() -> Values:
    """What each of the 256 codes of float8 e4m3fn means (OCP 8-bit floating point, 2023)."""
    codes = np.arange(256)
    exponent, fraction = (codes >> 3) & 15, codes & 7
    normal = np.exp2(exponent - 7.0) * (1 + fraction / 8)
    size = np.where(exponent == 0, np.exp2(-6.0) * fraction / 8, normal)
    size[(codes & 127) == 127] = np.nan
    signed: Values = np.where(codes < 128, size, -size).astype(np.float32)
    return signed


def _nearest_float8(values: Values) -> NDArray[np.uint8]:
    positive = _float8_values()[:127]
    magnitude = np.abs(values).ravel()
    above = np.clip(np.searchsorted(positive, magnitude), 1, 126)
    nearer = magnitude - positive[above - 1] < positive[above] - magnitude
    codes = np.where(nearer, above - 1, above)
    return np.where(values.ravel() < 0, codes + 128, codes).astype(np.uint8)
