"""Whether an adapter will work, for each backend, in words that a designer understands.

hosted  fal doesn't publish its loader: what stock diffusers does with such a file
local   merging: whatever the keys are called, every change that is defined is
        applied; a file with one that isn't is refused
demo    draws, so it takes any adapter of Z-Image
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lora_format.anatomy import Anatomy, Kind
from lora_format.families import ZIMAGE, family_on_card, made_for_base

BACKENDS: Final = ("hosted", "local", "demo")
TEXT_ENCODER: Final = "text encoder"

_INSTEAD: Final = {
    "empty": "it holds no tensors",
    "ControlNet": "it is a ControlNet",
    "embedding": "it is an embedding of words",
    "training adapter": "it exists to train other adapters with and undoes Turbo's distillation",
    "full model": "it holds a model's own weights",
    "unknown": "it holds no change of a kind that is known here",
}
_AS_DIFFUSERS: Final = "fal doesn't publish its loader; this is what stock diffusers does."
_SHOWN: Final = 3
_BASE_MODEL: Final = "Made for the base model Z-Image: hit and miss on Turbo."


class Fit(StrEnum):
    FITS = "fits"
    IN_PART = "fits in part"
    BASE_MODEL = "made for the base model"
    OTHER_FAMILY = "another family"
    NOT_AN_ADAPTER = "not an adapter"
    UNKNOWN = "can't tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`left_out` names what would not be applied: modules, keys that name none, text encoders."""

    fit: Fit
    reason: str
    left_out: tuple[str, ...] = ()


def verdicts(anatomy: Anatomy | None, base_models: tuple[str, ...] = ()) -> dict[str, Verdict]:
    """The verdict by backend. `base_models` are the card's; None: the header wasn't read.

    Keys and shapes beat the card. Where nothing is applied the fit is IN_PART
    with everything left out, and the reason says so.
    """
    if anatomy is None:
        return _everywhere(Fit.UNKNOWN, "Its header could not be read.")
    if anatomy.kind is Kind.NOT_AN_ADAPTER:
        instead = _INSTEAD[anatomy.layout]
        return _everywhere(Fit.NOT_AN_ADAPTER, f"Not an adapter: {instead}.")
    family = anatomy.family or family_on_card(base_models) or _stated_family(anatomy)
    if family is None:
        return _everywhere(Fit.UNKNOWN, "Its keys name no model that is known here.")
    if family != ZIMAGE:
        source = "" if anatomy.family else " by its description"
        return _everywhere(Fit.OTHER_FAMILY, f"Made for {family}{source}, not for Z-Image.")
    return _for_zimage(anatomy, _is_for_base(anatomy, base_models))


def _everywhere(fit: Fit, reason: str) -> dict[str, Verdict]:
    return {backend: Verdict(fit, reason) for backend in BACKENDS}


def _stated_family(anatomy: Anatomy) -> str | None:
    return family_on_card((anatomy.base_model,)) if anatomy.base_model else None


def _is_for_base(anatomy: Anatomy, base_models: tuple[str, ...]) -> bool:
    """By the card; without one, only if the metadata gives the base model's full name."""
    if family_on_card(base_models) == ZIMAGE:
        return made_for_base(base_models)
    return made_for_base((anatomy.base_model or "",))


def _for_zimage(anatomy: Anatomy, for_base: bool) -> dict[str, Verdict]:
    demo = Verdict(Fit.FITS, "The demo draws it in, whatever it holds.")
    if not anatomy.modules:
        nothing = Verdict(Fit.UNKNOWN, "Its keys name no module of Z-Image.", anatomy.unmatched)
        return {"hosted": nothing, "local": nothing, "demo": demo}
    real = {"hosted": _hosted(anatomy), "local": _local(anatomy)}
    if for_base:
        real = {backend: _with_base(verdict) for backend, verdict in real.items()}
    return {**real, "demo": demo}


def _with_base(verdict: Verdict) -> Verdict:
    """A file that fits is judged by its model; one that doesn't, by that first."""
    fit = Fit.BASE_MODEL if verdict.fit is Fit.FITS else verdict.fit
    return Verdict(fit, f"{_BASE_MODEL} {verdict.reason}", verdict.left_out)


# -- by backend ----------------------------------------------------------------


def _hosted(anatomy: Anatomy) -> Verdict:
    applied = set(anatomy.by_diffusers)
    dropped = tuple(module for module in anatomy.modules if module not in applied)
    left_out = dropped + _strays(anatomy)
    if left_out:
        return Verdict(Fit.IN_PART, f"{_loss(anatomy, dropped)} {_AS_DIFFUSERS}", left_out)
    return Verdict(Fit.FITS, f"{_all_modules(anatomy)} applied. {_AS_DIFFUSERS}")


def _loss(anatomy: Anatomy, dropped: tuple[str, ...]) -> str:
    """What is lost on the way, in one sentence."""
    if anatomy.diffusers_fails:
        return f"Loading it fails: {anatomy.kind} with these keys ({anatomy.layout}) is an error."
    if not dropped:
        return f"{_all_modules(anatomy)} applied; left out: {_named(_strays(anatomy))}."
    if anatomy.kind is Kind.DORA:
        return "It is applied without its DoRA scales, so not as it was trained."
    if len(dropped) == len(anatomy.modules):
        return f"Nothing of it is applied, silently: its layout ({anatomy.layout}) is ignored."
    return f"{len(dropped)} of {len(anatomy.modules)} modules are dropped: {_named(dropped)}."


def _local(anatomy: Anatomy) -> Verdict:
    """Merging is all or nothing, but for a text encoder, which isn't touched here."""
    left_out = _strays(anatomy)
    if anatomy.unmatched:
        reason = f"Refused, since not all of it can be merged: {_named(anatomy.unmatched)}."
        return Verdict(Fit.IN_PART, reason, left_out)
    if left_out:
        reason = f"{_all_modules(anatomy)} merged; the keys of a text encoder are left out."
        return Verdict(Fit.IN_PART, reason, left_out)
    return Verdict(Fit.FITS, f"{_all_modules(anatomy)} merged.")


def _strays(anatomy: Anatomy) -> tuple[str, ...]:
    """What is in the file beside changes of known modules."""
    return anatomy.unmatched + ((TEXT_ENCODER,) if anatomy.text_encoder else ())


def _all_modules(anatomy: Anatomy) -> str:
    count = len(anatomy.modules)
    return "Its one module is" if count == 1 else f"All {count} modules are"


def _named(names: tuple[str, ...]) -> str:
    """The first few of them."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
