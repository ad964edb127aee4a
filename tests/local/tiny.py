"""A tiny transformer of the real class, adapter files for it, and what stock diffusers makes
of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from diffusers.utils import logging as diffusers_logging

from tests.standins.adapters import Adapter
from tests.standins.adapters.changes import Wide
from tests.standins.tiny_pipeline import tiny_transformer

Weights = dict[str, torch.Tensor]


def transformer(dtype: torch.dtype = torch.float32, seed: int = 0) -> ZImageTransformer2DModel:
    """Random weights, at the size of `tests.standins.adapters.TINY`."""
    torch.manual_seed(seed)
    model: ZImageTransformer2DModel = tiny_transformer()
    return model.to(dtype).requires_grad_(False)


def weights(model: torch.nn.Module) -> Weights:
    """A copy of every parameter."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def wide(tensors: Mapping[str, torch.Tensor]) -> dict[str, Wide]:
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def merged(base: Mapping[str, Wide], loras: list[tuple[Adapter, float]]) -> dict[str, Wide]:
    """The reference in float64: each adapter's own change of the base, added up."""
    total = {name: np.array(weight) for name, weight in base.items()}
    for one, scale in loras:
        for name, weight in one.merged(base, scale).items():
            total[name] += weight - base[name]
    return total


def write(one: Adapter, folder: Path) -> Path:
    path = folder / one.file_name
    path.write_bytes(one.data())
    return path


# -- stock ---------------------------------------------------------------------


def stock(path: Path, model: torch.nn.Module) -> Weights:
    """The weights after diffusers and PEFT loaded and fused a file into a copy of the model.

    Raises whatever loading raises.
    """
    changed = copy.deepcopy(model)
    with _quietly():
        state, metadata = ZImagePipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, return_lora_metadata=True
        )
        if not all("lora" in key or "lokr" in key for key in state):
            raise ValueError("Invalid adapter checkpoint.")  # as `load_lora_weights` does
        ZImagePipeline.load_lora_into_transformer(
            state, transformer=changed, adapter_name="one", metadata=metadata
        )
        if getattr(changed, "peft_config", None):
            changed.fuse_lora()
            changed.unload_lora()
    return weights(changed)


@contextmanager
def _quietly() -> Iterator[None]:
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before)
