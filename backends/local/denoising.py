"""From noise to latents, one forward an image and step, stoppable between any two forwards.

`ZImagePipeline.__call__` for one image at a time, with the images of a request
taking turns at each step. The mathematics of a forward depends on what shares
its batch, in the last bits; alone, image i of a batch equals a single run with
its own seed, bit for bit. On one GPU a batch gains about 4% at 1024².
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift

from backends.local.job import Stop, Stopped
from backends.local.loading import Loaded

_RANGE: Final = 1000  # of the scheduler's timesteps; the model counts from 0 at noise to 1


@dataclass(slots=True)
class Denoised:
    """All images after `step` steps: `latents` and the `estimates` of where they lead,
    each (1, channels, rows, columns) in float32."""

    step: int
    latents: list[Any]
    estimates: list[Any]


def noise(loaded: Loaded, seed: int, width: int, height: int) -> Any:
    """(1, channels, rows, columns) for an image of that many pixels.

    Drawn on the processor: the same on every device. PyTorch's generator there
    takes a seed's low 32 bits.
    """
    scale = int(loaded.pipe.vae_scale_factor)
    shape = (1, loaded.pipe.transformer.in_channels, height // scale, width // scale)
    dice = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=dice, dtype=torch.float32).to(loaded.device)


def denoise(
    loaded: Loaded,
    transformer: Any,
    latents: Sequence[Any],
    embeds: Any,
    steps: int,
    stop: Stop,
) -> Iterator[Denoised]:
    """Exactly `steps` forwards an image, guidance 0 as Turbo was distilled; yields each step.

    `transformer` is the pipeline's, or a faster view of it.

    Raises:
        Stopped: `stop` said so; it is asked before every forward.
    """
    timesteps, sigmas = schedule(loaded, latents[0], steps)
    images = list(latents)
    for step in range(steps):
        sigma, later = sigmas[step], sigmas[step + 1]
        moment = ((_RANGE - timesteps[step]) / _RANGE).expand(1)
        estimates = []
        for index, image in enumerate(images):
            if stop():
                raise Stopped
            speed = velocity(transformer, image.to(loaded.dtype), moment, embeds)
            images[index] = image + (later - sigma) * speed
            estimates.append(image - sigma * speed)
        yield Denoised(step + 1, list(images), estimates)


def schedule(loaded: Loaded, latents: Any, steps: int) -> tuple[Any, Any]:
    """Timesteps (steps,) and sigmas (steps + 1,), the last of them 0, for latents of that size."""
    scheduler = loaded.pipe.scheduler
    tokens = (latents.shape[2] // 2) * (latents.shape[3] // 2)
    shift = calculate_shift(
        tokens,
        scheduler.config.get("base_image_seq_len", 256),
        scheduler.config.get("max_image_seq_len", 4096),
        scheduler.config.get("base_shift", 0.5),
        scheduler.config.get("max_shift", 1.15),
    )
    sigmas = torch.linspace(1.0, 1 / steps, steps).tolist()
    scheduler.set_timesteps(sigmas=sigmas, device=loaded.device, mu=shift)
    return scheduler.timesteps, scheduler.sigmas.to(loaded.device)


def velocity(transformer: Any, image: Any, moment: Any, embeds: Any) -> Any:
    """Where one image (1, channels, rows, columns) goes at a moment (1,), from 0 at noise to 1;
    in float32."""
    frame = image[0].unsqueeze(1)
    predicted = transformer([frame], moment, [embeds], return_dict=False)[0][0]
    return -predicted.float().squeeze(1).unsqueeze(0)


def decode(loaded: Loaded, latents: Any) -> Any:
    """One image as (height, width, 3) bytes in a numpy array."""
    vae = loaded.pipe.vae
    scaled = latents.to(loaded.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    pixels = vae.decode(scaled, return_dict=False)[0][0].float()
    unit = (pixels / 2 + 0.5).clamp(0, 1)
    return (unit.permute(1, 2, 0).cpu().numpy() * 255).round().astype("uint8")
