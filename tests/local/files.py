"""Adapter files from plain arrays, for what the corpus doesn't hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.standins.adapters.changes import Wide
from tests.standins.adapters.tensors import BYTES, encode, framed

DICE = np.random.default_rng(5)


def numbers(*shape: int) -> Wide:
    """Normally distributed ones that F32 holds exactly."""
    return (DICE.standard_normal(shape) * 0.1).astype(np.float32).astype(np.float64)


def save(
    path: Path,
    tensors: Mapping[str, Wide],
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Path:
    """A safetensors file; F32 where `dtypes` says nothing else."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    body = b""
    for name, values in tensors.items():
        dtype = (dtypes or {}).get(name, "F32")
        raw = _raw(dtype, values)
        offsets = [len(body), len(body) + len(raw)]
        entries[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        body += raw
    path.write_bytes(framed(json.dumps(entries).encode()) + body)
    return path


def _raw(dtype: str, values: Wide) -> bytes:
    if dtype in BYTES:
        narrow: NDArray[np.float32] = values.astype(np.float32)
        return encode(dtype, narrow)
    return values.astype({"F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1"}[dtype]).tobytes()
