"""The pipeline brought into memory, where it fits and nowhere else."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from diffusers import ZImagePipeline
from diffusers.hooks import apply_group_offloading
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from backends.local.options import LocalOptions
from backends.local.placement import ON_GPU, Placement, Weights, choose, smaller
from generation.errors import BackendUnavailable

PARTS: Final = ("transformer", "text_encoder", "vae")
BF16: Final = 2  # bytes
FP32: Final = 4


@dataclass(slots=True)
class Loaded:
    """A pipeline in its place. `dtype` is the type it runs in, `device` where it computes."""

    pipe: Any
    folder: Path
    placement: Placement
    device: Any
    dtype: Any

    @property
    def largest_side(self) -> int:
        """Pixels: what the rotary position tables of the model reach."""
        _, rows, columns = self.pipe.transformer.config.axes_lens
        return int(min(rows, columns)) * self.multiple

    @property
    def multiple(self) -> int:
        """Pixels that a side must divide by: 16 for Z-Image."""
        return int(self.pipe.vae_scale_factor) * 2

    def shrink(self) -> bool:
        """Move to the next smaller placement; False if there is none."""
        less = smaller(self.placement)
        if less is None:
            return False
        _place(self.pipe, less, self.placement)
        self.placement = less
        return True

    def settle(self) -> None:
        """Wait for the GPU, so that a stage's time is its own."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def load_pipeline(folder: Path, options: LocalOptions, report: Callable[[str], None]) -> Loaded:
    """Read a folder in diffusers' layout and place it.

    Raises:
        BackendUnavailable: no GPU, not enough memory (with the numbers), or no such model.
    """
    device = _device(options)
    wide = _weights(folder, FP32)
    in_memory = _free_memory()
    # A processor computes in float32 fastest, and most exactly, where that fits.
    exact = device.type == "cpu" and wide.in_memory(Placement.CPU) <= in_memory
    dtype = torch.float32 if exact else torch.bfloat16
    weights = wide if exact else _weights(folder, BF16)
    placement = choose(weights, _free_on_gpu(device), in_memory)
    report(f"Loading the model ({weights.total / 1e9:.1f} GB), {placement}")
    pipe = _read(folder, dtype)
    _place(pipe, placement)
    return Loaded(pipe, folder, placement, device, dtype)


def forget_garbage() -> None:
    """Give memory back after a failure, once nothing refers to it any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _device(options: LocalOptions) -> Any:
    if options.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = (
            f"PyTorch {torch.__version__} finds no GPU; PLAYGROUND_LOCAL_DEVICE=cpu does without"
        )
        raise BackendUnavailable(backend="local", reason=reason)
    return torch.device("cuda")


def _free_on_gpu(device: Any) -> int | None:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def _free_memory() -> int:
    return int(psutil.virtual_memory().available)


def _weights(folder: Path, width: int) -> Weights:
    """From the headers of the files, before a weight is read. `width` is bytes per parameter."""
    counts = {part: _parameters(folder / part) for part in PARTS}
    return Weights(**{part: count * width for part, count in counts.items()})


def _parameters(folder: Path) -> int:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        reason = f"the model has no safetensors files in {folder.name!r}"
        raise BackendUnavailable(backend="local", reason=reason)
    try:
        return sum(_parameters_of(file) for file in files)
    except SafetensorError as exc:
        reason = f"a file of the model's {folder.name!r} is broken ({exc})"
        raise BackendUnavailable(backend="local", reason=reason) from exc


def _parameters_of(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())


def _read(folder: Path, dtype: Any) -> Any:
    for log in (diffusers_logging, transformers_logging):
        log.disable_progress_bar()  # drawn on a terminal that is the server's
    try:
        pipe = ZImagePipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as exc:
        reason = (
            f"{folder.name!r} can't be read as a Z-Image pipeline ({type(exc).__name__}: {exc})"
        )
        raise BackendUnavailable(backend="local", reason=reason[:400]) from exc
    pipe.set_progress_bar_config(disable=True)
    for part in PARTS:
        getattr(pipe, part).eval().requires_grad_(False)
    return pipe


def _place(pipe: Any, placement: Placement, before: Placement | None = None) -> None:
    """Move the parts; what streams already is left alone, since its hooks can't be laid twice."""
    if placement is Placement.CPU:
        return
    streamed = _streamed(placement)
    for part in PARTS:
        if part not in streamed:
            getattr(pipe, part).to("cuda")
        elif before is None or part not in _streamed(before):
            _stream(getattr(pipe, part).to("cpu"))


def _streamed(placement: Placement) -> tuple[str, ...]:
    return ("text_encoder", "transformer")[: ON_GPU.index(placement)]


def _stream(module: Any) -> None:
    """Layers come to the GPU as they are needed and leave again; the numbers stay the same."""
    apply_group_offloading(
        module,
        onload_device=torch.device("cuda"),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=True,
    )
