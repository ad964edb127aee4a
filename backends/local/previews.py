"""Small pictures of an image that isn't ready, at most twice a second."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderTiny
from huggingface_hub import try_to_load_from_cache
from PIL import Image

from backends.local.denoising import decode
from backends.local.loading import Loaded

EVERY: Final = 0.5  # seconds
SIDE: Final = 256  # pixels of the longer side
TAEF1: Final = "madebyollin/taef1"

BLOCKS: Final = 8  # squared: flat fields that the decoder is shown once, to be fitted,
SPAN: Final = 4  # each of so many latent pixels a side

Project = Callable[[Any], Any]
"""From latents (1, 16, rows, columns) to colours (3, height, width) in -1..1."""


class Previews:
    """Makes previews of one job no faster than `EVERY`; the first one at once."""

    def __init__(self, project: Project, clock: Callable[[], float] = time.monotonic) -> None:
        self._project = project
        self._clock = clock
        self._last: float | None = None

    def take(self, latents: Any) -> bytes | None:
        """A JPEG, or None if the last one is too recent."""
        now = self._clock()
        if self._last is not None and now - self._last < EVERY:
            return None
        self._last = now
        return picture(self._project(latents))


def projection(loaded: Loaded) -> Project:
    """TAEF1 where its folder is: in the model's, or in the Hub's cache; else a fitted matrix."""
    folder = _taef1(loaded.folder)
    return linear(loaded) if folder is None else _tiny(folder, loaded)


def linear(loaded: Loaded) -> Project:
    """Rough colours at an eighth of the size: the model's own decoder as one matrix.

    Fitted by least squares to the colours that it makes of flat random fields.
    """
    channels = loaded.pipe.vae.config.latent_channels
    fields = torch.randn(BLOCKS**2, channels, generator=torch.Generator().manual_seed(0))
    known = torch.cat([fields, torch.ones(len(fields), 1)], dim=1)
    matrix = torch.linalg.lstsq(known, _colours(loaded, fields)).solution

    def project(latents: Any) -> Any:
        weights, offset = matrix.to(latents.device, torch.float32).split([channels, 1])
        return torch.einsum("chw,cr->rhw", latents[0].float(), weights) + offset.T[:, :, None]

    return project


def _colours(loaded: Loaded, fields: Any) -> Any:
    """What the decoder makes of each field, in -1..1, away from its edges: (fields, 3)."""
    grid = fields.T.reshape(1, -1, BLOCKS, BLOCKS)
    latents = grid.repeat_interleave(SPAN, 2).repeat_interleave(SPAN, 3)
    image = torch.from_numpy(decode(loaded, latents.to(loaded.device))).float() / 127.5 - 1
    side = image.shape[0] // BLOCKS
    middle = slice(side // 4, side - side // 4)
    blocks = image.reshape(BLOCKS, side, BLOCKS, side, 3)[:, middle, :, middle]
    return blocks.mean((1, 3)).reshape(-1, 3)


def picture(colours: Any) -> bytes:
    """(3, height, width) in -1..1 as a JPEG whose longer side is 256 pixels."""
    unit = (colours.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    image = Image.fromarray((unit.cpu().numpy() * 255).round().astype("uint8"))
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return file.getvalue()


def _taef1(model: Path) -> Path | None:
    if (model / "taef1" / "config.json").is_file():
        return model / "taef1"
    cached = try_to_load_from_cache(TAEF1, "diffusion_pytorch_model.safetensors")
    return Path(cached).parent if isinstance(cached, str) else None


def _tiny(folder: Path, loaded: Loaded) -> Project:
    decoder = AutoencoderTiny.from_pretrained(
        folder, dtype=loaded.dtype, use_safetensors=True, local_files_only=True
    ).to(loaded.device)

    def project(latents: Any) -> Any:
        return decoder.decode(latents.to(loaded.dtype), return_dict=False)[0][0]

    return project
