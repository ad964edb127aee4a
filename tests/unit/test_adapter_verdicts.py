"""Whether an adapter fits, per backend: expectations come from how each file was made."""

from __future__ import annotations

import dataclasses

import pytest

from lora_format.anatomy import Anatomy, examine
from lora_format.header import parse_header
from lora_registry.verdicts import BACKENDS, TEXT_ENCODER, Fit, Verdict, verdicts
from tests.standins.adapters import REAL, TINY, Adapter, Size, adapter, corpus

TURBO, BASE = "Tongyi-MAI/Z-Image-Turbo", "Tongyi-MAI/Z-Image"
Z_IMAGE = [one for one in corpus() if one.family == "Z-Image" and one.kind != "not an adapter"]


def anatomy_of(one: Adapter) -> Anatomy:
    return examine(parse_header(one.header(), name=one.file_name, file_bytes=one.size()))


def judged(name: str, *base_models: str, size: Size = TINY) -> dict[str, Verdict]:
    return verdicts(anatomy_of(adapter(name, size)), base_models)


@pytest.mark.parametrize("size", [TINY, REAL], ids=["tiny", "real"])
@pytest.mark.parametrize("name", [one.name for one in corpus()])
def test_the_fit_by_backend(name: str, size: Size) -> None:
    found = judged(name, size=size)
    assert {backend: verdict.fit for backend, verdict in found.items()} == adapter(name).fit
    assert tuple(found) == BACKENDS


@pytest.mark.parametrize("one", Z_IMAGE, ids=lambda one: one.name)
def test_what_is_left_out_is_named(one: Adapter) -> None:
    found = verdicts(anatomy_of(one))
    strays = one.unmatched + ((TEXT_ENCODER,) if one.text_encoder else ())
    assert found["hosted"].left_out == one.left_out + strays
    assert found["local"].left_out == strays
    assert found["demo"].left_out == ()


@pytest.mark.parametrize("one", Z_IMAGE, ids=lambda one: one.name)
def test_the_hosted_verdict_says_what_it_rests_on(one: Adapter) -> None:
    reason = verdicts(anatomy_of(one))["hosted"].reason
    assert "fal doesn't publish its loader" in reason and "stock diffusers" in reason


@pytest.mark.parametrize("one", corpus(), ids=lambda one: one.name)
def test_every_reason_is_a_short_sentence(one: Adapter) -> None:
    for verdict in verdicts(anatomy_of(one), (BASE,)).values():
        assert verdict.reason[0].isupper() and verdict.reason.endswith(".")
        assert len(verdict.reason) < 500 and "{" not in verdict.reason


@pytest.mark.parametrize(
    ("name", "backend", "said"),
    [
        ("diffusers", "hosted", "All 14 modules are applied."),
        ("comfyui-fused", "hosted", "8 of 14 modules are dropped: layers.0.attention.to_k"),
        ("bare", "hosted", "Nothing of it is applied, silently"),
        ("diffusers-alpha", "hosted", "Loading it fails"),
        ("comfyui-dora", "hosted", "without its DoRA scales"),
        ("kohya-text-encoder", "hosted", "All 14 modules are applied; left out: text encoder."),
        ("kohya-text-encoder", "local", "text encoder are left out"),
        (
            "comfyui-stray-module",
            "local",
            "Refused, since not all of it can be merged: diffusion_mo",
        ),
        ("comfyui-loha", "local", "All 14 modules are merged."),
        ("flux", "hosted", "Made for FLUX, not for Z-Image."),
        ("full-merge", "local", "a model's own weights"),
        ("controlnet", "demo", "ControlNet"),
        ("training-adapter", "hosted", "undoes Turbo's distillation"),
        ("empty", "hosted", "no tensors"),
    ],
)
def test_the_reason(name: str, backend: str, said: str) -> None:
    assert said in judged(name)[backend].reason


# -- the card ------------------------------------------------------------------


def fits(found: dict[str, Verdict]) -> tuple[Fit, ...]:
    return tuple(found[backend].fit for backend in BACKENDS)


@pytest.mark.parametrize(
    "cards", [(TURBO,), (BASE, TURBO), ("Qwen/Qwen3-4B", TURBO), ("someone/z_image_merge",), ()]
)
def test_made_for_turbo(cards: tuple[str, ...]) -> None:
    assert fits(judged("comfyui", *cards)) == (Fit.FITS,) * 3


@pytest.mark.parametrize("card", [BASE, "Tongyi-MAI/Z-Image-Edit", "tongyi-mai/z-image"])
def test_made_for_the_base_model(card: str) -> None:
    found = judged("comfyui", card)
    assert fits(found) == (Fit.BASE_MODEL, Fit.BASE_MODEL, Fit.FITS)
    assert "hit and miss on Turbo" in found["hosted"].reason


def test_what_does_not_fit_stays_so_for_the_base_model() -> None:
    found = judged("comfyui-fused", BASE)
    assert fits(found) == (Fit.IN_PART, Fit.BASE_MODEL, Fit.FITS)
    assert "hit and miss on Turbo" in found["hosted"].reason
    assert found["hosted"].left_out == judged("comfyui-fused")["hosted"].left_out


def test_without_a_card_the_metadata_may_name_the_base_model() -> None:
    anatomy = anatomy_of(adapter("comfyui"))
    named = dataclasses.replace(anatomy, base_model=BASE)
    assert verdicts(named)["hosted"].fit is Fit.BASE_MODEL
    assert verdicts(named, (TURBO,))["hosted"].fit is Fit.FITS
    assert verdicts(named, ("a/b",))["hosted"].fit is Fit.BASE_MODEL  # such a card says nothing
    assert judged("comfyui-ai-toolkit")["hosted"].fit is Fit.FITS  # "zimage" may be either


@pytest.mark.parametrize("card", ["black-forest-labs/FLUX.1-dev", "Qwen/Qwen-Image", "a/b"])
def test_keys_beat_the_card(card: str) -> None:
    assert fits(judged("comfyui", card)) == (Fit.FITS,) * 3
    assert fits(judged("sdxl-kohya", TURBO)) == (Fit.OTHER_FAMILY,) * 3
    assert fits(judged("full-merge", TURBO)) == (Fit.NOT_AN_ADAPTER,) * 3


def test_where_keys_do_not_tell_the_card_counts() -> None:
    found = judged("nobodys", "black-forest-labs/FLUX.1-dev")
    assert fits(found) == (Fit.OTHER_FAMILY,) * 3
    assert "Made for FLUX by its description" in found["hosted"].reason
    assert fits(judged("nobodys", TURBO)) == (Fit.UNKNOWN, Fit.UNKNOWN, Fit.FITS)
    assert fits(judged("nobodys", "a/b")) == fits(judged("nobodys")) == (Fit.UNKNOWN,) * 3


def test_a_header_that_was_not_read_tells_nothing() -> None:
    assert fits(verdicts(None, (TURBO,))) == (Fit.UNKNOWN,) * 3
