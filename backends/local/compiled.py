"""The transformer's blocks in regions, each with a compiled function of its own.

A region is a row of blocks that see the same tokens: the image's, the caption's, or both. The
scale of tokens differs, and a kernel that Inductor picked for one may be slow at another, so no
two regions share compiled code. Parameters are shared with the eager model, by identity.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Final

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

REGIONS: Final = {
    "noise_refiner": "noise refiner",
    "context_refiner": "context refiner",
    "layers": "main layers",
}
"""The rows of blocks in `ZImageTransformer2DModel`, in the order in which they run."""

Inputs = tuple[Tensor, ...]
"""Of a block: tokens (n, dim), rotations (n, head / 2, 2) as cosine and sine, and where the block
is modulated, the step's embedding (1, width). One image at a time, so there is no mask."""

Run = Callable[..., Tensor]
"""From a block and its inputs to its tokens."""

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


class Rotary:
    """`ZSingleStreamAttnProcessor` with rotations in real numbers: Inductor doesn't generate
    code for complex ones. The same products and sums."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = _rotated(attn.norm_q(query), freqs_cis)
        key = _rotated(attn.norm_k(key), freqs_cis)
        seen = dispatch_attention_fn(query, key, value)
        return attn.to_out[1](attn.to_out[0](seen.flatten(2, 3).to(query.dtype)))


def _rotated(heads: Tensor, rotations: Any) -> Tensor:
    """(1, n, heads, size) by (1, n, size / 2, 2)."""
    real, imaginary = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotations[:, :, None].unbind(-1)
    turned = torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), -1)
    return turned.flatten(3).type_as(heads)


def run_block(block: nn.Module, tokens: Tensor, rotations: Tensor, *modulation: Tensor) -> Tensor:
    """One block on its `Inputs`."""
    made = block(tokens[None], None, rotations[None], *modulation)
    return made[0].detach()


def separate(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same with a code object of its own: PyTorch keeps compiled code by code object."""
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name)


def sharing(block: nn.Module) -> Any:
    """A copy of a block around the same parameters, with real rotations."""
    kept: dict[int, Any] = {id(parameter): parameter for parameter in block.parameters()}
    twin = copy.deepcopy(block, kept)
    twin.attention.set_processor(Rotary())
    return twin


class Region(nn.Module):  # type: ignore[misc]
    """A row of blocks, each with the function that runs it, in the place of all of them.

    `replays` are recordings of the whole row, by their number of tokens.
    """

    def __init__(self, steps: Sequence[tuple[nn.Module, Run]]) -> None:
        super().__init__()
        self.steps = tuple(steps)  # no submodules: the parameters are the model's
        self.replays: dict[int, Callable[..., Tensor]] = {}

    def run(self, tokens: Tensor, rotations: Tensor, *modulation: Tensor) -> Tensor:
        """The row on `Inputs`, without a recording."""
        for block, run in self.steps:
            tokens = run(block, tokens, rotations, *modulation)
        return tokens

    def forward(self, x: Tensor, mask: None, freqs: Tensor, *modulation: Tensor | None) -> Tensor:
        """As diffusers calls a block, with tokens (1, n, dim)."""
        inputs = as_inputs(x, mask, freqs, *modulation)
        run: Callable[..., Tensor] = self.replays.get(x.shape[1]) or self.run
        return run(*inputs)[None]


def as_inputs(x: Tensor, mask: None, freqs: Tensor, *modulation: Tensor | None) -> Inputs:
    """From what diffusers gives a block.

    Compiled code is bound to what it first sees, so that has only one form: without the batch of
    one, whose stride depends on how a prompt was padded, and detached, which is no view.
    """
    if mask is not None or len(x) != 1:
        raise ValueError("a region runs one image at a time")
    given = (one for one in modulation if one is not None)
    return x[0].detach(), torch.view_as_real(freqs)[0].detach(), *given


def view(transformer: nn.Module, regions: dict[str, Region]) -> Any:
    """The transformer with regions in the place of rows of blocks; all else is shared."""
    seen = copy.copy(transformer)
    rows = {name: nn.ModuleList([region]) for name, region in regions.items()}
    seen._modules = {**transformer._modules, **rows}
    return seen


def recorded(transformer: nn.Module, forward: Callable[[], object]) -> dict[str, Inputs]:
    """What the first block of each region is given during a forward."""
    found: dict[str, Inputs] = {}
    hooks = [
        getattr(transformer, name)[0].register_forward_pre_hook(
            lambda _block, given, name=name: found.__setitem__(name, as_inputs(*given))
        )
        for name in REGIONS
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def resized(inputs: Inputs, count: int) -> Inputs:
    """The same with another number of tokens, repeated from the beginning."""
    tokens, rotations, *modulation = inputs
    rows = torch.arange(count, device=tokens.device) % len(tokens)
    return tokens[rows], rotations[rows], *modulation
