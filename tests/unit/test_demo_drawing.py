"""The demo's pictures: repeatable, of the size asked for, and moved by every part of a recipe."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backends.demo import drawing
from backends.demo.canvas import Grid
from backends.demo.drawing import Picture, Stopped, compose, draw, encode
from backends.demo.families import FAMILIES
from backends.demo.prompt import read
from generation.request import GenerationRequest

Pixels = npt.NDArray[np.float64]

PROMPTS = {
    "ridges": "misty mountains",
    "dunes": "a desert",
    "sea": "a lighthouse by the ocean",
    "city": "a city at night",
    "arches": "an old house",
    "portrait": "portrait of a woman",
    "botany": "fern leaves",
    "celestial": "a planet",
    "flow": "silk",
    "strata": "layered paper",
    "orbits": "a geometric poster",
    "tiles": "a mosaic",
}
PATHS = ("studio/film-grain", "someone/manga-print", "https://example.com/a.safetensors", "x/y")


def ask(prompt: str = "misty mountains", width: int = 160, height: int = 120, **rest: Any) -> Any:
    return GenerationRequest(prompt=prompt, image_size={"width": width, "height": height}, **rest)


def image(request: GenerationRequest, seed: int = 7) -> Image.Image:
    picture = compose(request, request.prompt, seed)
    return draw(picture, picture.size, request.num_inference_steps)


def pixels(request: GenerationRequest, seed: int = 7) -> Pixels:
    return np.asarray(image(request, seed), np.float64)


def difference(first: Pixels, second: Pixels) -> float:
    """Mean absolute difference in levels of 255."""
    return float(np.mean(np.abs(first - second)))


def likeness(first: Pixels, second: Pixels) -> float:
    """Correlation of the lightness at 16 × 12, without the mark and the vertical gradient."""
    small = []
    for values in (first, second):
        unmarked = values[: len(values) * 3 // 4]
        grey = Image.fromarray(unmarked.mean(axis=2).astype(np.uint8))
        tiny = np.asarray(grey.resize((16, 12), Image.Resampling.BOX), np.float64)
        small.append((tiny - tiny.mean(axis=1, keepdims=True)).ravel())
    return float(np.corrcoef(*small)[0, 1])


# -- repeatable ----------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_the_same_recipe_gives_the_same_bytes(prompt: str) -> None:
    request = ask(prompt, loras=[{"path": PATHS[0], "scale": 0.8}])
    assert encode(image(request), "png") == encode(image(request), "png")


def test_every_family_is_reached_by_its_words() -> None:
    assert {name: read(prompt).family for name, prompt in PROMPTS.items()} == {
        name: name for name in FAMILIES
    }


def test_a_seed_changes_the_picture_and_keeps_the_subject() -> None:
    assert difference(pixels(ask(), 1), pixels(ask(), 2)) > 5
    assert read("misty mountains").palette == read("misty mountains").palette


# -- sizes and formats ---------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("size", [(1, 1), (13, 2), (301, 77), (31, 200)], ids=str)
def test_any_small_size(prompt: str, size: tuple[int, int]) -> None:
    for steps in (1, 8):
        assert image(ask(prompt, *size, num_inference_steps=steps)).size == size


@pytest.mark.parametrize("size", [(4096, 1024), (2048, 2048), (100_000, 1)], ids=str)
def test_large_and_long(size: tuple[int, int]) -> None:
    assert image(ask("a planet", *size)).size == size


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_file_is_what_it_says(kind: Any) -> None:
    data = encode(image(ask()), kind)
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert (opened.format, opened.size) == (kind.upper(), (160, 120))


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_preview_shows_the_same_picture(prompt: str) -> None:
    picture = compose(ask(prompt, 640, 480), prompt, 7)
    large = draw(picture, (640, 480), 8).resize((160, 120), Image.Resampling.BOX)
    small = np.asarray(draw(picture, (160, 120), 8), np.float64)
    assert likeness(np.asarray(large, np.float64), small) > 0.97


# -- the prompt ----------------------------------------------------------------


def test_different_prompts_give_different_pictures() -> None:
    pictures = [pixels(ask(prompt)) for prompt in PROMPTS.values()]
    pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(difference(a, b) for a, b in pairs) > 8
    assert np.mean([likeness(a, b) for a, b in pairs]) < 0.3


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("misty mountains", "misty mountains, evening"),
        ("a cat", "a dog"),
        ("a red boat", "a blue boat"),
        ("雪山", "夜晚的雪山"),
        ("кот", "собака"),
    ],
)
def test_one_word_shows(prompt: str, other: str) -> None:
    assert difference(pixels(ask(prompt)), pixels(ask(other))) > 4


@pytest.mark.parametrize(
    ("prompt", "channel"),
    [("a red room", 0), ("红色的房间", 0), ("a blue room", 2), ("蓝色的房间", 2)],
)
def test_a_colour_word_colours(prompt: str, channel: int) -> None:
    means = pixels(ask(prompt)).mean(axis=(0, 1))
    assert means[channel] == max(means)


@pytest.mark.parametrize("prompt", ["mountains at night", "夜晚的山"])
def test_night_is_dark(prompt: str) -> None:
    assert pixels(ask(prompt)).mean() < 90 < pixels(ask("mountains in snow")).mean()


# -- steps ---------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_steps_resolve_one_composition(prompt: str) -> None:
    shots = [pixels(ask(prompt, num_inference_steps=steps)) for steps in (1, 2, 4, 6, 8)]
    left = [difference(shot, shots[-1]) for shot in shots]
    assert left == sorted(left, reverse=True)
    assert left[0] > 8
    assert likeness(shots[2], shots[-1]) > 0.75


# -- adapters ------------------------------------------------------------------


def with_adapters(*loras: tuple[str, float], prompt: str = "misty mountains") -> Pixels:
    return pixels(ask(prompt, loras=[{"path": path, "scale": scale} for path, scale in loras]))


@pytest.mark.parametrize("path", PATHS)
def test_an_adapter_shows_and_scale_0_does_nothing(path: str) -> None:
    plain = with_adapters()
    assert difference(with_adapters((path, 1.0)), plain) > 4
    assert np.array_equal(with_adapters((path, 0.0)), plain)


def test_more_scale_is_more_effect() -> None:
    scales = (0.25, 0.5, 1, 2, 4)
    effects = []
    for prompt in ("misty mountains", "silk", "a city at night"):
        plain = with_adapters(prompt=prompt)
        for path in PATHS:
            shots = (with_adapters((path, scale), prompt=prompt) for scale in scales)
            effects.append([difference(shot, plain) for shot in shots])
    average = np.mean(effects, axis=0)
    assert list(average) == sorted(average)
    assert average[-1] > 2 * average[0]


def test_a_small_change_of_scale_is_a_small_change() -> None:
    near = difference(with_adapters((PATHS[0], 1.0)), with_adapters((PATHS[0], 1.02)))
    far = difference(with_adapters((PATHS[0], 1.0)), with_adapters())
    assert 0 < near < far / 4


def test_a_negative_scale_goes_another_way() -> None:
    assert difference(with_adapters(("x/y", -1.0)), with_adapters(("x/y", 1.0))) > 4


def test_paths_decide_the_effect() -> None:
    shots = [with_adapters((path, 1.0)) for path in PATHS]
    pairs = [difference(a, b) for i, a in enumerate(shots) for b in shots[:i]]
    assert min(pairs) > 3


def test_three_adapters_combine_in_any_order() -> None:
    three = [(path, 0.7) for path in PATHS[:3]]
    together = with_adapters(*three)
    assert np.array_equal(together, with_adapters(*reversed(three)))
    for leave_out in three:
        rest = [lora for lora in three if lora is not leave_out]
        assert difference(together, with_adapters(*rest)) > 2


# -- the mark ------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["snow, white paper", "black night", "fern leaves"])
@pytest.mark.parametrize("size", [(256, 192), (512, 512), (1024, 768), (576, 1024)], ids=str)
def test_the_mark_is_legible_on_any_picture(prompt: str, size: tuple[int, int]) -> None:
    corner = pixels(ask(prompt, *size))[-int(size[1] * 0.12) :, : size[0] // 4].mean(axis=2)
    assert corner.min() < 40  # the plate
    assert corner.max() > 215  # the letters


@pytest.mark.parametrize("size", [(60, 40), (130, 24), (40, 300)], ids=str)
def test_a_small_picture_has_the_short_mark(size: tuple[int, int]) -> None:
    marked = pixels(ask("snow", *size))
    assert marked.min() < 40
    assert marked.max() > 215


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (8, 8), (20, 9)], ids=str)
def test_a_tiny_picture_has_a_chequered_edge(size: tuple[int, int]) -> None:
    edge = pixels(ask("fern leaves", *size))[-1].mean(axis=1)
    assert edge[0] > 215  # never all black, which would mean a flagged image
    assert size[0] == 1 or edge.min() < 40


# -- stopping ------------------------------------------------------------------


def test_drawing_stops_between_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    bands: list[Grid] = []

    def band(picture: Picture, grid: Grid) -> npt.NDArray[np.uint8]:
        bands.append(grid)
        return np.zeros((*grid.noise.shape, 3), np.uint8)

    monkeypatch.setattr(drawing, "_band", band)
    picture = compose(ask(width=1024, height=1024), "misty mountains", 7)
    with pytest.raises(Stopped):
        draw(picture, picture.size, 8, stop=lambda: len(bands) == 2)
    assert len(bands) == 2
