"""What came back: the endpoint's output, and the receipt that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from generation.imagefile import ImageInfo
from generation.lora_file import LoraFile, as_written
from generation.pricing import cost_of_units, estimate_cost
from generation.request import ENDPOINT, Acceleration, GenerationRequest

NO_FILES: Final[Mapping[str, LoraFile]] = MappingProxyType({})


class _Answer(BaseModel):
    """Frozen; unknown fields are dropped, since a vendor may add some any day."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageFile(_Answer):
    """One image of a result: an address (`https:` or `data:`), or its bytes.

    Width and height are pixels, `file_size` bytes; a backend may leave any of
    them out. `data` never reaches the journal.
    """

    url: str = ""
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    data: bytes | None = Field(default=None, exclude=True, repr=False)


class AppliedLora(_Answer):
    """What became of one adapter. `applied` is None where the backend doesn't say."""

    path: str
    scale: float
    file: str | None = None
    sha: str | None = None
    applied: bool | None = None


class GenerationResult(_Answer):
    """The endpoint's whole output, plus what its transport told us.

    `timings` are seconds by stage. `prompt` is the prompt really used, which
    differs from the request's after prompt expansion. `billable_units` are the
    vendor's own count, megapixels here. `acceleration` is the mode really used,
    None where the backend doesn't say.
    """

    images: tuple[ImageFile, ...]
    timings: dict[str, FiniteFloat] = {}
    seed: int
    has_nsfw_concepts: tuple[bool, ...] = ()
    prompt: str = ""
    request_id: str | None = None
    billable_units: float | None = None
    acceleration: Acceleration | None = None
    loras: tuple[AppliedLora, ...] = ()
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Receipt(_Answer):
    """What was really done, in the words of the Gradio API.

    `seed` is text: above 2**53 a browser rounds numbers. `cost_usd` is 0 where
    nothing is billed; `cost_is_estimate` says that the vendor gave no count.
    """

    request_id: str | None
    backend: str
    model: str
    seed: str
    prompt: str
    expanded_prompt: str | None
    image_size: dict[str, int]
    num_inference_steps: int
    acceleration: str
    loras: tuple[AppliedLora, ...]
    has_nsfw_concepts: tuple[bool, ...]
    timings: dict[str, float]
    cost_usd: float
    cost_is_estimate: bool
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, as `/generate` and the history give it."""
        return self.model_dump(mode="json")


def make_receipt(
    request: GenerationRequest,
    result: GenerationResult,
    images: Sequence[ImageInfo],
    *,
    backend: str,
    billed: bool,
    notices: tuple[str, ...] = (),
    lora_files: Mapping[str, LoraFile] = NO_FILES,
) -> Receipt:
    """The receipt of a finished job, whose `images` are here and were looked at.

    `lora_files` are the adapters as they were found, by their path in the request.
    """
    width, height = request.pixels
    return Receipt(
        request_id=result.request_id,
        backend=backend,
        model=ENDPOINT,
        seed=str(result.seed),
        prompt=request.prompt,
        expanded_prompt=_expanded(request, result),
        image_size={"width": width, "height": height},
        num_inference_steps=request.num_inference_steps,
        acceleration=result.acceleration or request.acceleration,
        loras=tuple(_found(lora, lora_files) for lora in result.loras or _as_asked(request)),
        has_nsfw_concepts=result.has_nsfw_concepts,
        timings=result.timings,
        cost_usd=cost_of(request, result) if billed else 0.0,
        cost_is_estimate=billed and result.billable_units is None,
        ignored=result.ignored,
        warnings=(*notices, *_surprises(request, result, images), *result.warnings),
    )


def _expanded(request: GenerationRequest, result: GenerationResult) -> str | None:
    changed = result.prompt.strip() not in ("", request.prompt.strip())
    return result.prompt if changed else None


def _as_asked(request: GenerationRequest) -> tuple[AppliedLora, ...]:
    return tuple(AppliedLora(path=lora.path, scale=lora.scale) for lora in request.loras)


def _found(lora: AppliedLora, files: Mapping[str, LoraFile]) -> AppliedLora:
    """With its file and sha, which a backend needn't know."""
    found = files.get(lora.path) or as_written(lora.path)
    facts = {"file": lora.file or found.file, "sha": lora.sha or found.sha}
    return lora.model_copy(update=facts)


def cost_of(request: GenerationRequest, result: GenerationResult) -> float:
    """US dollars of a billed result: by the vendor's count, or estimated where it gave none."""
    if result.billable_units is None:
        return float(estimate_cost(request).total)
    return float(cost_of_units(result.billable_units, request.enable_prompt_expansion))


def _surprises(
    request: GenerationRequest, result: GenerationResult, images: Sequence[ImageInfo]
) -> tuple[str, ...]:
    """What differs from what was asked for."""
    found = []
    if len(images) < request.num_images:
        found.append(f"{len(images)} of {request.num_images} images came back.")
    if request.seed is not None and result.seed != request.seed:
        found.append(f"The endpoint used seed {result.seed} instead of {request.seed}.")
    flags = (*result.has_nsfw_concepts, *(False for _ in images))
    for number, (image, flagged) in enumerate(zip(images, flags, strict=False), 1):
        if image.all_black and not flagged:
            found.append(f"Image {number} is all black although nothing was flagged.")
        if (image.width, image.height) != request.pixels:
            found.append(f"Image {number} is {image.width} × {image.height} pixels.")
    return tuple(found)
