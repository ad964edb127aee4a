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

from backends.local.loading import Loaded

EVERY: Final = 0.5  # seconds
SIDE: Final = 256  # pixels of the longer side
TAEF1: Final = "madebyollin/taef1"

# The autoencoder of FLUX.1 as one matrix, 16 latent channels to red, green, blue in -1..1.
# Source: numbers published by InvokeAI (Apache-2.0), invokeai/app/util/step_callback.py.
LATENT_TO_RGB: Final = (
    (-0.0412, 0.0149, 0.0521), (0.0056, 0.0291, 0.0768), (0.0342, -0.0681, -0.0427),
    (-0.0258, 0.0092, 0.0463), (0.0863, 0.0784, 0.0547), (-0.0017, 0.0402, 0.0158),
    (0.0501, 0.1058, 0.1152), (-0.0209, -0.0218, -0.0329), (-0.0314, 0.0083, 0.0896),
    (0.0851, 0.0665, -0.0472), (-0.0534, 0.0238, -0.0024), (0.0452, -0.0026, 0.0048),
    (0.0892, 0.0831, 0.0881), (-0.1117, -0.0304, -0.0789), (0.0027, -0.0479, -0.0043),
    (-0.1146, -0.0827, -0.0598),
)  # fmt: skip

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
    """TAEF1 where its folder is: in the model's, or in the Hub's cache; else the matrix."""
    folder = _taef1(loaded.folder)
    return linear if folder is None else _tiny(folder, loaded)


def linear(latents: Any) -> Any:
    """Rough colours at an eighth of the size."""
    matrix = torch.tensor(LATENT_TO_RGB, device=latents.device, dtype=latents.dtype)
    return torch.einsum("chw,cr->rhw", latents[0], matrix)


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
