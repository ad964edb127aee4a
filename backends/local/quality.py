"""Do the faster modes make the same images? For whoever has the real weights.

    python -m backends.local.quality [--folder quality] [--model FOLDER_OR_HUB_ID]

Renders a fixed set of recipes in each mode of `acceleration`, from the same
seeds, and compares them with `none`: PSNR (dB, higher is nearer), SSIM (0 to 1,
higher is nearer) and LPIPS (0 to 1, lower is nearer; Zhang et al. 2018). Writes
the images, a contact sheet and `report.json` to the folder.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final, get_args

import torch
from PIL import Image, ImageChops, ImageDraw

from backends.local.engine import Engine
from backends.local.job import Job
from backends.local.options import LocalOptions
from backends.local.validation import UNVALIDATED, Validation, folder_here, record, revision
from generation.errors import PlaygroundError
from generation.request import Acceleration, GenerationRequest
from generation.result import GenerationResult
from settings import Settings

MODES: Final[tuple[Acceleration, ...]] = get_args(Acceleration)
THUMBNAIL: Final = 384  # pixels of a side on the contact sheet
CAPTION: Final = 24  # pixels

# What tells a lossy mode from an exact one: faces, hands, letters, fine patterns, flat tones.
RECIPES: Final = tuple(
    GenerationRequest(prompt=prompt, image_size="square_hd", seed=seed, output_format="png")
    for seed, prompt in enumerate(
        (
            "Close portrait of an old fisherman, every wrinkle and eyelash sharp, overcast light",
            "Two hands shuffling a deck of playing cards on green felt, seen from above",
            'A hand-painted shop sign that reads "FRESH BREAD DAILY" above a wooden door',
            "A houndstooth jacket on a hanger, the weave in focus, studio light",
            "A white ceramic cup on a white table against a white wall, soft shadow",
            "A street market at night in the rain, neon letters mirrored in the puddles",
            "Isometric cutaway of a small library with hundreds of readable book spines",
            "A red fox mid-leap over fresh snow, each hair of its tail visible, low sun",
        ),
        start=101,
    )
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one image against the same recipe in `none`. `psnr` is None of equal images, which have
    no noise; `lpips` is None where its weights couldn't be had."""

    psnr: float | None
    ssim: float
    lpips: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The scores by mode, in the order of the recipes, and all of it as text."""

    scores: Mapping[str, Sequence[Scores]]
    text: str


Perceptual = Callable[[torch.Tensor, torch.Tensor], float]
"""LPIPS of two images (1, 3, height, width) in 0..1."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, compare, say it, and keep a record by which `high` is known to be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("quality"), help="for what it makes")
    parser.add_argument("--model", help="instead of PLAYGROUND_LOCAL_MODEL")
    chosen = parser.parse_args(arguments)
    options = LocalOptions.of(Settings())
    options = replace(options, model=chosen.model or options.model)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    try:
        report = compare_modes(Engine(options), RECIPES, chosen.folder)
    except PlaygroundError as exc:
        sys.exit(str(exc))
    print(report.text)
    if kept := keep(report, options):
        print(f"'high' is known as compared now: {kept}")


def compare_modes(engine: Engine, recipes: Sequence[GenerationRequest], folder: Path) -> Report:
    """Everything of one engine; a mode that it doesn't have is left out.

    Raises:
        PlaygroundError: an image could not be made.
        ModuleNotFoundError: see requirements-quality.txt.
    """
    perceptual, problem = lpips()
    problems = [f"LPIPS was left out: {problem}"] if problem else []
    images: dict[Acceleration, list[Image.Image]] = {}
    for mode in MODES:
        made, warnings = _rendered(engine, recipes, mode)
        problems += warnings
        if made:
            images[mode] = made
    for mode, made in images.items():
        for recipe, image in zip(recipes, made, strict=True):
            image.save(folder / f"{recipe.seed}-{mode}.png")
    scores: dict[str, list[Scores]] = {
        mode: [compare(*pair, perceptual) for pair in zip(images["none"], made, strict=True)]
        for mode, made in images.items()
        if mode != "none"
    }
    contact_sheet(images, [recipe.prompt for recipe in recipes]).save(folder / "contact-sheet.png")
    kept = {mode: [asdict(one) for one in found] for mode, found in scores.items()}
    (folder / "report.json").write_text(json.dumps(kept, indent=2))
    return Report(scores, _report(recipes, scores, problems))


def keep(report: Report, options: LocalOptions) -> Path | None:
    """The record of this model's `high`; None if there is nothing to record."""
    folder = folder_here(options.model)
    found = _average(report.scores.get("high", ()))
    if folder is None or options.data is None or found is None or found.psnr is None:
        return None
    gpu = torch.cuda.is_available()
    validation = Validation(
        revision=revision(folder),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        device=torch.cuda.get_device_name() if gpu else platform.processor() or "processor",
        psnr=found.psnr,
        ssim=found.ssim,
        lpips=found.lpips,
    )
    return record(options.data, validation)


def _rendered(
    engine: Engine, recipes: Sequence[GenerationRequest], mode: Acceleration
) -> tuple[list[Image.Image], tuple[str, ...]]:
    """The images, none if the engine ran another mode; and what it said of the mode."""
    made = []
    warnings: tuple[str, ...] = ()
    for recipe in recipes:
        request = recipe.model_copy(update={"acceleration": mode, "enable_safety_checker": False})
        result = engine.run(Job.of(request, {}), lambda _: None, lambda: False)
        warnings = tuple(one for one in result.warnings if one != UNVALIDATED)
        if result.acceleration != mode:
            return [], warnings
        made.append(_image(result))
    return made, warnings


def _image(result: GenerationResult) -> Image.Image:
    data = result.images[0].data
    assert data is not None
    return Image.open(io.BytesIO(data)).convert("RGB")


# -- comparing -----------------------------------------------------------------


def compare(one: Image.Image, other: Image.Image, perceptual: Perceptual | None) -> Scores:
    """How near two images of one size are."""
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    pair = _pixels(other), _pixels(one)
    noise = float(peak_signal_noise_ratio(*pair, data_range=1.0))
    return Scores(
        psnr=None if math.isinf(noise) else noise,
        ssim=float(structural_similarity_index_measure(*pair, data_range=1.0)),
        lpips=perceptual(*pair) if perceptual else None,
    )


def _pixels(image: Image.Image) -> torch.Tensor:
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return raw.view(1, image.height, image.width, 3).permute(0, 3, 1, 2) / 255


def lpips() -> tuple[Perceptual | None, str | None]:
    """The metric, or why it can't be had: it needs the weights of a small network."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric: Any = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
    except (OSError, ImportError, RuntimeError) as exc:  # no weights, no torchvision, a wrong one
        return None, f"{type(exc).__name__}: {exc}"[:200]
    return lambda *pair: float(metric(*pair)), None


# -- showing -------------------------------------------------------------------


def contact_sheet(
    images: Mapping[Acceleration, Sequence[Image.Image]], prompts: Sequence[str]
) -> Image.Image:
    """A row for each recipe, a column for each mode, its difference from `none` four times over."""
    columns = 2 * len(images) - 1
    sheet = Image.new("RGB", (columns * THUMBNAIL, len(prompts) * (THUMBNAIL + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, prompt in enumerate(prompts):
        top = row * (THUMBNAIL + CAPTION)
        draw.text((4, top + 6), prompt, fill="black")
        for column, (mode, made) in enumerate(images.items()):
            left = column * THUMBNAIL
            sheet.paste(_small(made[row]), (left, top + CAPTION))
            draw.text((left + 4, top + CAPTION + 4), mode, fill="white", stroke_width=1)
            if mode != "none":
                beside = (left + (len(images) - 1) * THUMBNAIL, top + CAPTION)
                sheet.paste(_difference(images["none"][row], made[row]), beside)
    return sheet


def _small(image: Image.Image) -> Image.Image:
    return image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _difference(one: Image.Image, other: Image.Image) -> Image.Image:
    return _small(ImageChops.difference(one, other).point(lambda value: min(255, 4 * value)))


def _report(
    recipes: Sequence[GenerationRequest],
    scores: Mapping[str, Sequence[Scores]],
    problems: Sequence[str],
) -> str:
    lines = [f"{'':8}{'PSNR dB':>9}{'SSIM':>8}{'LPIPS':>8}  against none"]
    for mode, found in scores.items():
        for recipe, one in zip(recipes, found, strict=True):
            lines.append(_line(mode, one) + f"  {recipe.prompt[:60]}")
        if average := _average(found):
            lines.append(_line("mean", average) + f"  of {mode}")
    return "\n".join([*lines, *problems])


def _average(scores: Sequence[Scores]) -> Scores | None:
    if not scores:
        return None
    return Scores(
        psnr=_mean([one.psnr for one in scores]),
        ssim=fmean(one.ssim for one in scores),
        lpips=_mean([one.lpips for one in scores]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _line(name: str, one: Scores) -> str:
    noise = "equal" if one.psnr is None else f"{one.psnr:.2f}"
    perceptual = "–" if one.lpips is None else f"{one.lpips:.4f}"
    return f"{name:8}{noise:>9}{one.ssim:8.4f}{perceptual:>8}"


if __name__ == "__main__":
    main()
