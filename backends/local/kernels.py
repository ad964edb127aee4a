"""Compiled, recorded and eight-bit kernels of one transformer, as far as they prove themselves.

All of it happens once, when the model is loaded: an image then runs what is here and nothing
else. What fails, differs or isn't faster is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from backends.local.compiled import (
    REGIONS,
    Compile,
    Inputs,
    Region,
    recorded,
    resized,
    run_block,
    separate,
    sharing,
    view,
)
from backends.local.denoising import noise, velocity
from backends.local.encoding import MAX_TOKENS
from backends.local.fp8 import Fp8Blocks, quantise_into, room
from backends.local.gate import (
    FP8,
    ROUNDINGS,
    WHOLE,
    Clock,
    Rejected,
    check_blocks,
    check_close,
    check_faster,
    meet_scales,
    run_eager,
    seconds,
    spacing,
)
from backends.local.graphs import Capture, capturer
from backends.local.job import Stop, Stopped
from backends.local.loading import Loaded, forget_garbage
from backends.local.placement import GIB, WORK, Placement

CAPTION: Final = 90  # tokens of the probe's prompt: no multiple of 32, as most are
PADDED: Final = 32  # the model pads captions and images to multiples of so many tokens

Say = Callable[[str], None]


def why_not_compiled(loaded: Loaded) -> str | None:
    """None where compiled blocks may run: all of the transformer stays on a GPU."""
    if loaded.device.type != "cuda":
        return "there is no GPU"
    if loaded.placement is Placement.ALL_STREAMED:
        return "the transformer is streamed from main memory"
    return None


def why_not_fp8(loaded: Loaded) -> str | None:
    """None where a GPU multiplies eight bits and has room for such weights, beside the pristine
    copy that adapters need."""
    able = torch.cuda.get_device_capability(loaded.device)
    if able < (8, 9):
        return f"it needs a GPU of compute capability 8.9 (this one has {able[0]}.{able[1]})"
    if loaded.placement is not Placement.GPU:
        return f"it needs the whole model on the GPU (here: {loaded.placement})"
    transformer = loaded.pipe.transformer
    copy = sum(weight.nbytes for weight in transformer.parameters())
    needed = room(transformer.layers[1:-1]) + copy + WORK
    free = int(torch.cuda.mem_get_info(loaded.device)[0])
    if free < needed:
        return f"it needs {needed / GIB:.1f} GiB more of the GPU (there are {free / GIB:.1f})"
    return None


@dataclass(frozen=True, slots=True)
class Tools:
    """What compiles, records and measures on a device, and what says that it can't.

    At the scale of an image of `side`² pixels compiled code must be the faster; at `small`²
    launches take longer than the work, so they are recorded.
    """

    compile: Compile = partial(torch.compile, dynamic=True)
    capturer: Callable[[], Capture] = capturer
    clock: Clock = seconds
    why_not_compiled: Callable[[Loaded], str | None] = why_not_compiled
    why_not_fp8: Callable[[Loaded], str | None] = why_not_fp8
    side: int = 1024
    small: int = 512


@dataclass(slots=True)
class High:
    """The main layers in eight bits, and the parameters written since their weights followed."""

    region: Region
    weights: Fp8Blocks
    stale: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Kernels:
    """What there is: `regions` by their rows' names, and why `high` is None. `left_out` says
    what runs eager kernels after all, and why."""

    regions: dict[str, Region] = field(default_factory=dict)
    high: High | None = None
    no_high: str = ""
    left_out: dict[str, str] = field(default_factory=dict)


class Workshop:
    """Makes the kernels of a loaded transformer."""

    def __init__(self, loaded: Loaded, tools: Tools) -> None:
        self._loaded = loaded
        self._tools = tools
        self._model = loaded.pipe.transformer
        self._made = Kernels()

    def build(self, say: Say, stop: Stop) -> Kernels:
        """Region by region, and told so. Whatever a compiler raises, eager kernels remain.

        Raises:
            Stopped: `stop` said so; it is asked between any two regions.
        """
        if problem := self._tools.why_not_compiled(self._loaded):
            return Kernels(no_high=problem)
        seen: dict[str, Inputs] = {}
        if problem := _failure(lambda: seen.update(self._look())):
            return Kernels(no_high=problem, left_out={"the transformer": problem})
        for number, (name, title) in enumerate(REGIONS.items(), 1):
            _begin(f"Compiling: {number} of {len(REGIONS)}, {title}", say, stop)
            self._attempt(title, partial(self._compile, name, seen[name]))
        self._attempt("all regions together", self._check_whole)
        _begin("Recording the launches of small images", say, stop)
        self._attempt("launches", partial(self._record, self._made.regions, seen))
        self._made.no_high = self._tools.why_not_fp8(self._loaded) or ""
        if not self._made.no_high:
            _begin("Compiling: main layers in eight bits", say, stop)
            self._add_high(seen["layers"])
        return self._made

    def _look(self) -> dict[str, Inputs]:
        """The inputs of each region at the scale of a whole image."""
        return recorded(self._model, lambda: self._probe(self._model, self._tools.side))

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        if reason := _failure(work):
            self._made.left_out[what] = reason

    def _compile(self, name: str, inputs: Inputs) -> None:
        blocks = list(getattr(self._model, name))
        run = self._tools.compile(separate(run_block, name))
        region = Region([(sharing(block), run) for block in blocks])
        check_blocks(region, blocks, inputs, ROUNDINGS * spacing(inputs[0].dtype))
        meet_scales(region, inputs, (PADDED, 2 * len(inputs[0])))
        check_faster(self._time(region.run, inputs), self._time(_eager(blocks), inputs))
        self._made.regions[name] = region

    def _check_whole(self) -> None:
        """Forwards through all regions, of the same seeds as eager ones."""
        mine = view(self._model, self._made.regions)
        far = WHOLE * spacing(self._loaded.dtype)
        try:
            for seed in range(2):
                found = self._probe(mine, self._tools.small, seed)
                wanted = self._probe(self._model, self._tools.small, seed)
                check_close(found.flatten(), wanted.flatten(), far)
        except Exception:
            self._made.regions.clear()
            raise

    def _record(self, regions: dict[str, Region], seen: dict[str, Inputs]) -> None:
        """For images of `small`² with a caption of any length: a fixed number of recordings."""
        capture = self._tools.capturer()
        image = (self._tools.small // self._loaded.multiple) ** 2
        captions = range(PADDED, MAX_TOKENS + 1, PADDED)
        counts = {
            "noise_refiner": [image],
            "context_refiner": list(captions),
            "layers": [image + caption for caption in captions],
        }
        for name, region in regions.items():
            try:
                self._record_region(region, seen[name], counts[name], capture)
            except Exception:
                region.replays.clear()
                raise

    def _record_region(
        self, region: Region, inputs: Inputs, counts: Sequence[int], capture: Capture
    ) -> None:
        for count in counts:
            region.replays[count] = capture(region.run, resized(inputs, count))
        small = resized(inputs, counts[0])
        replay = region.replays[counts[0]]
        check_close(replay(*small), region.run(*small), spacing(small[0].dtype))
        check_faster(self._time(replay, small), self._time(region.run, small))

    def _add_high(self, inputs: Inputs) -> None:
        """All or nothing: without it, `regular` is what `high` becomes."""
        made = self._made
        made.no_high = _failure(partial(self._compile_high, inputs)) or ""
        if made.high is not None and not made.no_high:
            recording = partial(self._record, {"layers": made.high.region}, {"layers": inputs})
            self._attempt("launches in eight bits", recording)

    def _compile_high(self, inputs: Inputs) -> None:
        blocks = list(self._model.layers)
        first, *_, last = steps = self._regular_steps(blocks)
        quantise = self._tools.compile(separate(quantise_into, "quantise"))
        weights = Fp8Blocks(blocks, range(1, len(blocks) - 1), quantise=quantise)
        run = self._tools.compile(separate(run_block, "layers_fp8"))
        region = Region([first, *((block, run) for block in weights.blocks.values()), last])
        check_blocks(region, blocks, inputs, FP8)
        meet_scales(region, inputs, (PADDED, 2 * len(inputs[0])))
        check_faster(self._time(region.run, inputs), self._time(Region(steps).run, inputs))
        self._made.high = High(region, weights)

    def _regular_steps(self, blocks: Sequence[nn.Module]) -> Sequence[tuple[Any, Any]]:
        found = self._made.regions.get("layers")
        return found.steps if found else [(block, run_eager) for block in blocks]

    def _time(self, run: Callable[..., Tensor], inputs: Inputs) -> float:
        return self._tools.clock(lambda: run(*inputs))

    def _probe(self, transformer: Any, side: int, seed: int = 0) -> Tensor:
        """A forward on fixed noise, of that many pixels a side, and a fixed caption."""
        dice = torch.Generator("cpu").manual_seed(seed)
        caption = torch.randn(CAPTION, self._model.config.cap_feat_dim, generator=dice)
        image = noise(self._loaded, seed, side, side)
        moment = torch.full((1,), 0.5, device=self._loaded.device)
        embeds = caption.to(self._loaded.device, self._loaded.dtype)
        return velocity(transformer, image.to(self._loaded.dtype), moment, embeds)


def _begin(line: str, say: Say, stop: Stop) -> None:
    if stop():
        raise Stopped
    say(line)


def _failure(work: Callable[[], None]) -> str | None:
    """Why it didn't go; None if it did."""
    try:
        work()
    except Rejected as exc:
        reason = str(exc)
    except Exception as exc:
        reason = f"{type(exc).__name__}: {exc}"[:200]
    else:
        return None
    forget_garbage()  # outside of the handlers, which hold the frames
    return reason


def _eager(blocks: Sequence[nn.Module]) -> Callable[..., Tensor]:
    return Region([(block, run_eager) for block in blocks]).run
