"""Z-Image Turbo without its weights: pipelines of the real shapes, adapters, FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3Model

from tests.standins.tiny_pipeline import byte_tokenizer, tiny_pipeline

RANK: Final = 16  # of an adapter
LOUDNESS: Final = 0.01  # of its factors

# The configurations of the parts as they are published; the transformer's are its defaults.
_TEXT: Final[Mapping[str, Any]] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
_VAE: Final[Mapping[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@dataclass(frozen=True, slots=True)
class Model:
    """What is measured: `pipeline` makes it whole on a device, `transformer` that part again."""

    name: str
    pipeline: Callable[[torch.device], Any]
    transformer: Callable[[torch.device], Any]


def _pipeline(device: torch.device) -> Any:
    with _made_on(device, torch.bfloat16):
        return ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=AutoencoderKL(**_VAE).eval().requires_grad_(False),
            text_encoder=Qwen3Model(Qwen3Config(**_TEXT)).eval().requires_grad_(False),
            tokenizer=byte_tokenizer(),
            transformer=_transformer(device),
        )


def _transformer(device: torch.device) -> Any:
    with _made_on(device, torch.bfloat16):
        model = ZImageTransformer2DModel()
        for token in (model.x_pad_token, model.cap_pad_token):  # left as they are in memory
            nn.init.normal_(token)
        return model.eval().requires_grad_(False)


@contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Any:
    """Made where it will be and as it will be: 12 GB are neither moved nor converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def _tiny(device: torch.device) -> Any:
    return tiny_pipeline().to(device)


REAL: Final = Model("the real shapes, random weights", _pipeline, _transformer)
TINY: Final = Model(
    "a tiny model", _tiny, lambda device: _tiny(device).transformer.requires_grad_(False)
)


def write_adapters(transformer: nn.Module, folder: Path, count: int) -> list[Path]:
    """LoRAs of `RANK` on every linear of the blocks, in diffusers' own keys."""
    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ("attention" in name or "feed_forward" in name)
    }
    return [_write(shapes, folder / f"adapter-{number}.safetensors") for number in range(count)]


def _write(shapes: Mapping[str, tuple[int, int]], path: Path) -> Path:
    tensors = {}
    for name, (rows, columns) in shapes.items():
        tensors[f"transformer.{name}.lora_A.weight"] = _factor(RANK, columns)
        tensors[f"transformer.{name}.lora_B.weight"] = _factor(rows, RANK)
    save_file(tensors, path)
    return path


def _factor(rows: int, columns: int) -> torch.Tensor:
    return (torch.randn(rows, columns) * LOUDNESS).to(torch.bfloat16)


# -- floating-point operations -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs that an image can't do without, counted by PyTorch on tensors without data."""

    forward: float
    decode: float


def count(pipe: Any, side: int, tokens: int) -> Work:
    """Of one square image with a prompt of that many tokens."""
    dim = side // int(pipe.vae_scale_factor)
    with torch.device("meta"):
        transformer = ZImageTransformer2DModel.from_config(pipe.transformer.config)
        decoder = AutoencoderKL.from_config(pipe.vae.config)
        channels, caption = transformer.in_channels, transformer.config.cap_feat_dim
        latents, prompt = torch.empty(channels, 1, dim, dim), torch.empty(tokens, caption)
        moment = torch.empty(1)
        return Work(
            _flops(lambda: transformer([latents], moment, [prompt], return_dict=False)),
            _flops(lambda: decoder.decode(latents.view(1, channels, dim, dim))),
        )


def _flops(work: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        work()
    return float(counter.get_total_flops())
