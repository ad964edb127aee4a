"""The comparison of the modes: what its figures mean, and what it leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from backends.local.options import LocalOptions
from backends.local.quality import (
    RECIPES,
    THUMBNAIL,
    Report,
    Scores,
    compare,
    compare_modes,
    keep,
)
from backends.local.validation import validated
from generation.request import GenerationRequest, ImageSize
from tests.local.tiny_engine import tiny_engine


def flat(value: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, value, value))


def test_equal_images_have_no_noise() -> None:
    image = Image.effect_noise((32, 32), 60).convert("RGB")
    scores = compare(image, image.copy(), None)
    assert scores.psnr is None
    assert scores.ssim == pytest.approx(1)


@pytest.mark.parametrize("step", [1, 5, 40])
def test_psnr_is_that_of_8_bits(step: int) -> None:
    scores = compare(flat(100), flat(100 + step), None)
    assert scores.psnr == pytest.approx(20 * math.log10(255 / step), abs=0.01)


def test_another_structure_is_seen_where_the_noise_is_the_same() -> None:
    one = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    assert compare(one, one.rotate(90), None).ssim < compare(one, one.point(lambda v: v), None).ssim


def test_the_perceptual_metric_gets_both_images_in_the_unit_range() -> None:
    seen: list[torch.Tensor] = []

    def metric(one: torch.Tensor, other: torch.Tensor) -> float:
        seen.extend((one, other))
        return 0.25

    assert compare(flat(255), flat(51), metric).lpips == 0.25
    assert [tuple(image.shape) for image in seen] == [(1, 3, 32, 32)] * 2
    assert sorted(float(image.max()) for image in seen) == pytest.approx([0.2, 1.0])


def small_recipes() -> list[GenerationRequest]:
    small = ImageSize(width=64, height=64)
    return [recipe.model_copy(update={"image_size": small}) for recipe in RECIPES[:2]]


def test_all_recipes_are_rendered_in_each_mode_and_compared(tmp_path: Path) -> None:
    recipes = small_recipes()
    engine = tiny_engine(LocalOptions(model="", device="cpu"))
    report = compare_modes(engine, recipes, tmp_path)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert [one["psnr"] for one in kept["regular"]] == [None, None]  # exact by design
    assert "high" not in kept and "'high' isn't to be had here" in report.text
    assert recipes[0].prompt[:40] in report.text
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width == 3 * THUMBNAIL  # two modes, and the difference
    for recipe in recipes:
        assert (tmp_path / f"{recipe.seed}-none.png").exists()


def test_a_comparison_of_high_is_known_to_the_engine_afterwards(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    options = LocalOptions(model=str(tmp_path / "model"), data=tmp_path)
    report = Report({"high": [Scores(30, 0.9, None), Scores(40, 0.8, None)]}, "")
    assert keep(report, options) is not None
    known = validated(tmp_path, tmp_path / "model")
    assert known is not None and known.psnr == 35 and known.ssim == pytest.approx(0.85)


def test_without_high_nothing_is_recorded(tmp_path: Path) -> None:
    options = LocalOptions(model=str(tmp_path), data=tmp_path)
    assert keep(Report({"regular": [Scores(None, 1, None)]}, ""), options) is None
    assert validated(tmp_path, tmp_path) is None
