"""What is seen of a job: previews, the safety checker's verdict, progress while loading."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from backends.local.denoising import Denoised, denoise, noise, schedule
from backends.local.engine import Engine
from backends.local.options import LocalOptions
from backends.local.previews import Previews, linear, picture
from backends.local.safety import UNCHECKED, Classifier
from generation.errors import BackendUnavailable, InvalidRequest
from generation.imagefile import inspect_image
from tests.local.engine_bench import Bench, pixels
from tests.standins.tiny_pipeline import save_tiny_classifier, save_tiny_pipeline

# -- previews ------------------------------------------------------------------


def test_a_preview_is_a_small_jpeg_of_the_images_shape(bench: Bench) -> None:
    bench.run()
    previews = [event.preview for event in bench.told if event.preview is not None]
    assert previews and bench.told[-1].step == 8
    info = inspect_image(previews[0])
    assert (info.format, info.width, info.height) == ("JPEG", 256, 192)


def test_previews_come_at_most_twice_a_second() -> None:
    now = [0.0]
    seen: list[Any] = []

    def project(latents: Any) -> Any:
        seen.append(latents)
        return torch.zeros(3, 4, 4)

    previews = Previews(project, lambda: now[0])
    taken = []
    for tick in range(100):
        now[0] = tick / 20  # five seconds at 20 steps a second
        taken.append(previews.take(tick) is not None)
    assert [n for n, took in enumerate(taken) if took] == list(range(0, 100, 10))
    assert len(seen) == 10, "what isn't shown isn't computed"


def test_a_preview_shows_where_the_image_goes_and_not_its_noise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    steps: list[Denoised] = []

    def project(latents: Any) -> Any:
        shown.append(latents)
        return latents[0, :3]

    def noted(*arguments: Any) -> Iterator[Denoised]:
        for step in denoise(*arguments):
            steps.append(step)
            yield step

    bench.run()
    monkeypatch.setattr(bench.engine, "_project", project)
    monkeypatch.setattr("backends.local.previews.EVERY", 0)
    monkeypatch.setattr("backends.local.engine.denoise", noted)
    bench.run(num_images=2)
    assert len(shown) == len(steps) == 8
    assert all(a is step.estimates[0] for a, step in zip(shown, steps, strict=True))


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_an_estimate_is_where_one_straight_step_would_end(bench: Bench) -> None:
    bench.run()
    embeds = bench.engine._encoder.encode("a fox").embeds
    start = noise(bench.loaded, 7, 64, 48)
    steps = list(
        denoise(bench.loaded, bench.loaded.pipe.transformer, [start], embeds, 8, lambda: False)
    )
    _, sigmas = schedule(bench.loaded, start, 8)
    before = start
    for step in steps:
        at, to = sigmas[step.step - 1], sigmas[step.step]
        direction = (step.latents[0] - before) / (to - at)
        before = step.latents[0]
        torch.testing.assert_close(step.estimates[0], before - to * direction, rtol=0, atol=1e-4)
    assert sigmas[-1] == 0, "so the last estimate is the image"


def test_the_matrix_is_fitted_to_the_models_own_decoder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is a matrix itself is found again, its offset included."""
    bench.run()
    dice = torch.Generator().manual_seed(5)
    weights, offset = torch.randn(16, 3, generator=dice) / 20, torch.tensor([0.1, -0.2, 0.0])

    def decode(_loaded: Any, latents: torch.Tensor) -> Any:
        colours = torch.einsum("chw,cr->hwr", latents[0], weights) + offset
        large = colours.repeat_interleave(8, 0).repeat_interleave(8, 1)
        return ((large / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    monkeypatch.setattr("backends.local.previews.decode", decode)
    latents = torch.randn(1, 16, 5, 7, generator=dice)
    expected = torch.einsum("chw,cr->rhw", latents[0], weights) + offset.view(3, 1, 1)
    torch.testing.assert_close(linear(bench.loaded)(latents), expected, rtol=0, atol=0.02)


def test_a_preview_has_the_right_colours() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1).expand(3, 10, 20)
    image = Image.open(io.BytesIO(picture(red)))
    assert image.size == (256, 128)
    r, g, b = image.getpixel((100, 60))  # type: ignore[misc]
    assert r > 240 and g < 15 and b < 15


def test_taef1_beside_the_model_makes_the_previews(tiny: LocalOptions, tmp_path: Path) -> None:
    model = save_tiny_pipeline(tmp_path / "model")
    small = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(latent_channels=16, **small).save_pretrained(model / "taef1")
    options = LocalOptions(model=str(model), device="cpu", safety=tiny.safety)
    bench = Bench(Engine(options))
    bench.run()
    colours = bench.engine._project(torch.zeros(1, 16, 6, 8))
    assert colours.shape == (3, 48, 64), "at full size, where the matrix gives an eighth"
    assert bench.told[1].preview is not None


# -- the safety checker --------------------------------------------------------


class Flagging:
    """Flags the second image."""

    def __init__(self) -> None:
        self.looked = 0

    def __call__(self, images: Sequence[Image.Image]) -> tuple[bool, ...]:
        self.looked += len(images)
        return tuple(index == 1 for index in range(len(images)))


def test_a_flagged_image_is_black_and_the_others_are_left(bench: Bench) -> None:
    before = bench.run(num_images=3, enable_safety_checker=False)
    assert before.has_nsfw_concepts == () and before.warnings == ()
    bench.engine._checker = Flagging()
    result = bench.run(num_images=3)
    assert result.has_nsfw_concepts == (False, True, False)
    assert not pixels(result, 1).any() and result.images[1].width == 64
    for index in (0, 2):
        assert result.images[index].data == before.images[index].data


def test_nobody_looks_when_the_checker_is_off(bench: Bench) -> None:
    checker = bench.engine._checker = Flagging()
    bench.run(enable_safety_checker=False)
    assert checker.looked == 0


def test_the_classifiers_unsafe_label_flags(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48), "teal")
    safe = Classifier(save_tiny_classifier(tmp_path / "safe"))
    unsafe = Classifier(save_tiny_classifier(tmp_path / "unsafe", ("NSFW", "normal")))
    assert safe([image, image]) == (False, False)
    assert unsafe([image]) == (True,)


def test_a_classifier_without_an_unsafe_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no label"):
        Classifier(save_tiny_classifier(tmp_path / "pets", ("cat", "dog")))


def no_weights(tmp_path: Path) -> str:
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


def test_without_its_weights_a_checked_request_is_refused_before_anything_is_loaded(
    bench_with: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = bench_with(safety=no_weights(tmp_path))
    with pytest.raises(InvalidRequest, match="enable_safety_checker.*PLAYGROUND_LOCAL_UNCHECKED"):
        bench.run()
    assert bench.engine._loaded is None and bench.told == []
    assert bench.run(enable_safety_checker=False).images


def test_the_owner_may_run_unchecked_and_the_receipt_says_so(
    bench_with: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = bench_with(safety=no_weights(tmp_path), unchecked=True)
    result = bench.run()
    assert result.warnings == (UNCHECKED,) and result.has_nsfw_concepts == ()
    assert bench.run(enable_safety_checker=False).warnings == ()


# -- progress ------------------------------------------------------------------


def test_loading_is_told_once(bench: Bench) -> None:
    bench.run()
    (line,) = [line for event in bench.told for line in event.logs]
    assert line.startswith("Loading the model (0.0 GB)")
    bench.run()
    assert [line for event in bench.told for line in event.logs] == []
