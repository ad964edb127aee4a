"""Weight files for the catalogue: honest safetensors headers, zeros for the numbers."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache

from .hub_repos import RepoFile

WIDTH, HIDDEN = 3840, 10240
"""Of Z-Image's transformer: its channels, and those inside its feed-forward."""
BYTES = {"BF16": 2, "F16": 2, "F32": 4}
Shapes = Mapping[str, tuple[int, ...]]
ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
FEED_FORWARD = {"w1": (HIDDEN, WIDTH), "w2": (WIDTH, HIDDEN), "w3": (HIDDEN, WIDTH)}


def weights(
    name: str,
    shapes: Shapes,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: str = "BF16",
    date: str | None = None,
) -> RepoFile:
    """A file of these tensors, in this order, all zero."""
    body, size = _header(tuple(shapes.items()), tuple((metadata or {}).items()), dtype)
    return RepoFile(name, body, size, date)


@lru_cache(maxsize=256)
def _header(
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    metadata: tuple[tuple[str, str], ...],
    dtype: str,
) -> tuple[bytes, int]:
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key, shape in shapes:
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        table[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    body = len(text).to_bytes(8, "little") + text
    return body, len(body) + end


@lru_cache(maxsize=64)
def lora(rank: int, layers: int = 30, *, feed_forward: bool = False) -> Shapes:
    """A LoRA for Z-Image under the usual names: `diffusion_model.layers.…lora_A.weight`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        stem = f"diffusion_model.layers.{layer}"
        for module in ATTENTION:
            shapes |= _pair(f"{stem}.{module}", (WIDTH, WIDTH), rank)
        for module, size in FEED_FORWARD.items() if feed_forward else ():
            shapes |= _pair(f"{stem}.feed_forward.{module}", size, rank)
    return shapes


def _pair(stem: str, size: tuple[int, int], rank: int) -> Shapes:
    width_out, width_in = size
    down, up = (rank, width_in), (width_out, rank)
    return {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}


@lru_cache(maxsize=4)
def flux_lora(rank: int = 16) -> Shapes:
    """For FLUX: other blocks, other widths."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(19):
        for module in ("attn.to_q", "attn.to_k", "attn.to_v"):
            stem = f"transformer.transformer_blocks.{block}.{module}"
            shapes |= _pair(stem, (3072, 3072), rank)
    return shapes


def control_net() -> Shapes:
    """Layers of its own beside the model's: no adapter."""
    names = ("before_proj", "after_proj", "attention.to_q", "attention.to_k")
    return {f"control_layers.0.{name}.weight": (WIDTH, WIDTH) for name in names}


def merged_model() -> Shapes:
    """The model's own weights, or two layers of them."""
    names = [f"layers.{layer}.{module}.weight" for layer in range(2) for module in ATTENTION]
    return dict.fromkeys(names, (WIDTH, WIDTH))
