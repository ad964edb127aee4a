"""The local pipeline's speed, on a GPU machine without a network: stock diffusers and ours.

    python -m benchmarks.local_gpu [--rounds 5] [--output FILE]     # a GPU with 80 GB
    python -m benchmarks.local_gpu --tiny                           # any processor, any speed

Random weights of the real shapes: valid for time, no evidence of quality. In one
process and in turns: diffusers' `ZImagePipeline` with PEFT, eager; the same with
what its documentation names for speed (compiled blocks, hot-swapping); and the
local backend's engine in its three modes; with 0 to 3 adapters, at two sizes, one
image and four. `--tiny` shows that the script runs and what it prints: its
figures say nothing about a GPU.

A share of the floor is the time that the counted floating-point operations take
at the rate which this machine reached on a single product of the model's own
shape, divided by the time taken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from torch._dynamo.utils import counters

from backends.local.adapters import MergedAdapters
from backends.local.encoding import PromptEncoder
from backends.local.loading import Loaded, forget_garbage
from benchmarks._common import Spread, print_table
from benchmarks._contestants import (
    EAGER,
    STEPS,
    Contestant,
    Ours,
    Scene,
    Taken,
    engine,
    in_memory,
    stock,
)
from benchmarks._gpu_targets import Figures, verdicts
from benchmarks._machine import Rates, measure, seconds
from benchmarks._z_image import REAL, TINY, Model, Work, count, write_adapters
from generation.lora_file import LoraFile
from generation.request import Acceleration

MODES: Final[tuple[Acceleration, ...]] = ("none", "regular", "high")
PROMPT_TOKENS: Final = 64  # of the scenes' prompt with its chat template, padded to 32
REQUESTS: Final = 200  # at random, after which nothing may have been compiled
FILES: Final = 9  # adapters: three times three, none of which is there twice


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rendered: `sides` in pixels, the first of which the targets are about."""

    model: Model
    device: torch.device
    sides: tuple[int, ...]
    images: tuple[int, ...]
    rounds: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the processor")
    parser.add_argument("--rounds", type=int, default=5, help="renderings of each kind")
    parser.add_argument("--output", type=Path, help="a file that gets the same text")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here. --tiny runs the same script on a tiny model.")
    plan = _plan(options.tiny, options.rounds)
    with _copied(options.output), tempfile.TemporaryDirectory() as folder:
        _run(plan, Path(folder))


def _plan(tiny: bool, rounds: int) -> Plan:
    if tiny:
        return Plan(TINY, torch.device("cpu"), (128, 64), (1, 2), rounds)
    return Plan(REAL, torch.device("cuda"), (1024, 512), (1, 4), rounds)


@contextlib.contextmanager
def _copied(path: Path | None) -> Iterator[None]:
    """What is printed inside goes to the file too, also if it ends early."""
    if path is None:
        yield
        return
    with path.open("w") as file, contextlib.redirect_stdout(_Both(file)):
        yield


class _Both(io.TextIOBase):
    def __init__(self, file: Any) -> None:
        self._streams = (sys.stdout, file)

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
            stream.flush()
        return len(text)


def _run(plan: Plan, folder: Path) -> None:
    torch.manual_seed(0)
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {plan.model.name} on {_device(plan.device)}")
    print(f"PyTorch {torch.__version__}, diffusers {diffusers.__version__}\n")
    with torch.no_grad():
        pipe = plan.model.pipeline(plan.device)
        files = write_adapters(pipe.transformer, folder, FILES)
        config = pipe.transformer.config
        tokens = (plan.sides[0] // 16) ** 2 + PROMPT_TOKENS
        rates = measure(plan.device, tokens, config.dim, int(config.dim / 3 * 8))
        _print_rates(rates)
        loaded = in_memory(pipe, folder, plan.device)
        figures: Figures = {}
        modes = _warmed_up(plan, loaded, files, figures)
        _compare(plan, [*_stock(plan, pipe, files[:3]), *modes], pipe, rates, figures)
        forget_garbage()  # the other two transformers
        _swaps(plan, pipe, files, figures)
        _encoding(plan, loaded, figures)
        _recompiles(plan, modes, figures)
        if plan.device.type == "cuda":
            print("Targets, which are an H100's")
            print_table(("", "figure", "target", ""), verdicts(figures))


def _warmed_up(plan: Plan, loaded: Loaded, files: Sequence[Path], figures: Figures) -> list[Ours]:
    """Our modes, those that there are; the engine says why one isn't."""
    ours, found = engine(loaded), []
    started = time.perf_counter()
    for mode in MODES:
        contestant = Ours(mode, ours, files)
        result = contestant.run(Scene(plan.sides[0], 1, 0, steps=1))
        print("".join(f"{warning}\n" for warning in result.warnings), end="")
        if result.acceleration == mode:
            found.append(contestant)
    figures["warm-up"] = time.perf_counter() - started
    print(f"Compiling, and a first image in each mode: {figures['warm-up']:.1f} s\n", flush=True)
    return found


def _device(device: torch.device) -> str:
    if device.type == "cpu":
        return f"a processor ({platform.machine()}, {torch.get_num_threads()} threads)"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} ({found.total_memory / 2**30:.0f} GiB)"


def _print_rates(rates: Rates) -> None:
    tera, giga = 1e12, 1e9
    rows = [("product, bf16, TFLOP/s", _scaled(rates.product, tera))]
    if rates.product8:
        rows.append(("product, fp8, TFLOP/s", _scaled(rates.product8, tera)))
    rows.append(("copy within the device, GB/s", _scaled(rates.copy, giga)))
    if rates.upload:
        rows.append(("copy from pinned memory, GB/s", _scaled(rates.upload, giga)))
    print("The machine itself: median (min–max)")
    print_table(("", "rate"), rows)


def _scaled(spread: Spread, unit: float) -> str:
    return Spread(tuple(value / unit for value in spread.values)).show()


# -- rendering -----------------------------------------------------------------


def _stock(plan: Plan, pipe: Any, files: Sequence[Path]) -> Iterator[Contestant]:
    for best in (False, True):
        try:
            yield stock(plan.model, pipe, files, plan.device, best=best)
        except Exception as exc:
            print(f"left out: stock{' at its best' if best else ''}: {type(exc).__name__}: {exc}\n")


def _compare(
    plan: Plan, contestants: list[Contestant], pipe: Any, rates: Rates, figures: Figures
) -> None:
    """Every scene by everyone, in an order that changes with every round."""
    for size, side in zip(("large", "small"), plan.sides, strict=True):
        floor = _floor(count(pipe, side, PROMPT_TOKENS), rates)
        for images in plan.images:
            scenes = [Scene(side, images, adapters) for adapters in range(4)]
            taken = _rounds(contestants, scenes, plan.rounds)
            _print_scenes(side, images, taken, floor * images)
            if images == 1:
                figures |= {(size, *key): _medians(found) for key, found in taken.items()}
                figures[size, "floor"] = floor


def _medians(taken: Sequence[Taken]) -> Taken:
    whole, denoising = ([one.whole for one in taken], [one.denoising for one in taken])
    return Taken(statistics.median(whole), statistics.median(denoising))


def _rounds(
    going: list[Contestant], scenes: Sequence[Scene], rounds: int
) -> dict[tuple[str, int], list[Taken]]:
    """By name and number of adapters; the first round isn't counted. Who fails has lost."""
    taken: dict[tuple[str, int], list[Taken]] = defaultdict(list)
    for number in range(rounds + 1):
        for scene in scenes:
            turn = number % len(going)
            for one in [*going[turn:], *going[:turn]]:
                try:
                    found = one.render(replace(scene, prompt=f"{scene.prompt}, take {number}"))
                except Exception as exc:
                    print(f"left out: {one.name}: {type(exc).__name__}: {exc}"[:500] + "\n")
                    going.remove(one)
                    continue
                taken[one.name, scene.adapters] += [found] if number else []
    return {key: found for key, found in taken.items() if found}


def _floor(work: Work, rates: Rates) -> float:
    """Seconds of the denoising at the rate of a single product."""
    return STEPS * work.forward / rates.product.median


def _print_scenes(
    side: int, images: int, taken: dict[tuple[str, int], list[Taken]], floor: float
) -> None:
    rows = []
    names = {name: None for name, _ in taken}
    for name, adapters in sorted(taken, key=lambda key: (list(names).index(key[0]), key[1])):
        found = taken[name, adapters]
        whole = Spread(tuple(one.whole for one in found))
        denoising = Spread(tuple(one.denoising for one in found))
        against = taken.get((EAGER, adapters))
        stock_whole = Spread(tuple(one.whole for one in against)).median if against else None
        bare = Spread(tuple(one.denoising for one in taken[name, 0])).median
        rows.append(
            (
                f"{name}; {adapters} adapters",
                whole.show(3),
                f"{whole.median / stock_whole:.3f}" if stock_whole else "–",
                denoising.show(3),
                f"{denoising.median / bare:.4f}",
                f"{100 * floor / denoising.median:.0f}%",
            )
        )
    print(f"{side} × {side}, {STEPS} steps, {images} image(s): seconds, median (min–max)")
    head = ("", "prompt to pictures", "of stock", "denoising", "of no adapter", "of the floor")
    print_table(head, rows)


# -- what isn't rendering ------------------------------------------------------


def _swaps(plan: Plan, pipe: Any, files: Sequence[Path], figures: Figures) -> None:
    """From any three adapters to any other three: their factors on the device, or not."""
    rows = []
    for where, kept in (("on the device", 2**31), ("in main memory", 0)):
        adapters = MergedAdapters(pipe.transformer, on_device=kept)
        sets = [_loras(files[start : start + 3]) for start in range(0, FILES, 3)]
        for one in sets:  # read once from disk
            adapters.apply(one)
        turns = iter(sets * 20)
        spent = seconds(lambda: adapters.apply(next(turns)), plan.device)  # noqa: B023
        adapters.restore()
        figures["swap", where] = spent.median
        rows.append((f"three other adapters, {where}", _scaled(spent, 1e-3)))
    print("A swap: milliseconds, median (min–max)")
    print_table(("", "ms"), rows)


def _loras(files: Sequence[Path]) -> list[tuple[LoraFile, float]]:
    return [(LoraFile(path=str(file), local=file), 0.8) for file in files]


def _encoding(plan: Plan, loaded: Loaded, figures: Figures) -> None:
    encoder = PromptEncoder(loaded)
    prompts = (f"a fox in the snow, number {number}" for number in range(1000))

    def as_stock() -> None:
        loaded.pipe.encode_prompt(
            next(prompts), device=plan.device, do_classifier_free_guidance=False
        )

    stock_time = seconds(as_stock, plan.device)
    fresh = seconds(lambda: encoder.encode(next(prompts)), plan.device)
    again = seconds(lambda: encoder.encode("a fox"), plan.device)
    rows = [
        ("stock, padded to 512 tokens", _scaled(stock_time, 1e-3), "1"),
        ("ours, new", _scaled(fresh, 1e-3), f"{fresh.median / stock_time.median:.3f}"),
        ("ours, repeated", _scaled(again, 1e-3), f"{again.median / stock_time.median:.5f}"),
    ]
    figures["encoding"] = fresh.median / stock_time.median
    figures["encoding again"] = again.median
    print("Encoding a short prompt: milliseconds, median (min–max)")
    print_table(("", "ms", "of stock"), rows)


def _recompiles(plan: Plan, modes: Sequence[Ours], figures: Figures) -> None:
    """Requests at random in the compiled modes; nothing may be compiled on their account."""
    dice = random.Random(0)
    before = _compiled()
    for _ in range(REQUESTS):
        scene = Scene(
            side=16 * dice.randint(4, plan.sides[0] // 16),
            images=dice.choice(plan.images),
            adapters=dice.randint(0, 3),
            prompt="x " * dice.randint(1, 200),
            steps=1,
        )
        dice.choice(modes).run(scene)
    figures["recompiles"] = float(_compiled() - before)
    print(f"{REQUESTS} random requests compiled {figures['recompiles']:.0f} graphs\n")


def _compiled() -> int:
    return int(counters["stats"]["unique_graphs"])


if __name__ == "__main__":
    main()
