"""GenerationRequest: every parameter of `fal-ai/z-image/turbo/lora`, declared once.

Names, defaults and bounds are the endpoint's own (fal's API reference of the
model, read in November 2026). Controls, payload, snippets, the Gradio API, the
README's table and the rows in history are derived from this model.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

ENDPOINT: Final = "fal-ai/z-image/turbo/lora"

ImageSizePreset = Literal[
    "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"
]
PRESET_PIXELS: Final[dict[ImageSizePreset, tuple[int, int]]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
MAX_PIXELS: Final = 4 * 1024 * 1024  # "up to about 4 MP" in fal's documentation
MAX_SEED: Final = 2**64 - 1  # the endpoint's own sample seed needs all 64 bits
MAX_LORAS: Final = 3
MAX_PROMPT: Final = 4000  # the text encoder reads 512 tokens, about 2,000 characters of English

OutputFormat = Literal["jpeg", "png", "webp"]
Acceleration = Literal["none", "regular", "high"]

# C0 and C1 controls but tab and line feed: invisible, and some of them end strings elsewhere.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ADDRESS = re.compile(r"https://[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
# As the Hub allows them: letters, digits and _.- inside, neither "--" nor "..".
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?!.*(?:--|\.\.))(?=.{{3,96}}$){_NAME}/{_NAME}")
_UPLOAD = re.compile(r"upload:[0-9a-f]{64}")  # a file given to this playground, by its sha256


def _clean_prompt(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("holds half of a character (a lone surrogate); type it again")
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; describe the image you want")
    return text


def _exact_integer(value: Any) -> Any:
    """Take whole numbers as int or digits only: a float may have been rounded already."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # int() itself reads more than digits (underscores, other scripts), and refuses very long text.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,40}", value.strip()):
        return int(value.strip())
    raise ValueError("must be a whole number of digits, without sign, point or exponent")


def _lora_path(path: str) -> str:
    path = path.strip()
    if any(form.fullmatch(path) for form in (_HUB_ID, _ADDRESS, _UPLOAD)):
        return path
    raise ValueError("must be a Hugging Face id such as owner/name, or an https address")


def _finite(scale: Any) -> Any:
    if isinstance(scale, float) and not math.isfinite(scale):
        raise ValueError("must be a finite number")
    return scale


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)


class ImageSize(_Frozen):
    """A custom size in pixels, at most about four megapixels."""

    width: int = Field(512, gt=0, title="Width", description="Pixels.")
    height: int = Field(512, gt=0, title="Height", description="Pixels.")

    @model_validator(mode="after")
    def _within_limit(self) -> ImageSize:
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(
                f"is {self.width} × {self.height}, more than 4 megapixels ({MAX_PIXELS:,} pixels)"
            )
        return self


class LoraRef(_Frozen):
    """One adapter: where it is and how strongly it applies.

    The widest range of any backend; the one in use may narrow it (the hosted
    endpoint takes 0 to 4), see `backends.base.Capabilities`.
    """

    path: Annotated[str, AfterValidator(_lora_path)] = Field(
        max_length=2000,
        title="Adapter",
        description="A Hugging Face id (owner/name) or the https address of a safetensors file.",
    )
    scale: Annotated[float, BeforeValidator(_finite)] = Field(
        1.0, ge=-4, le=4, title="Scale", description="How strongly the adapter applies."
    )


class GenerationRequest(_Frozen):
    """What one click asks for. Field names are the endpoint's wire names."""

    prompt: Annotated[str, BeforeValidator(_clean_prompt), AfterValidator(_refuse_blank)] = Field(
        max_length=MAX_PROMPT,
        title="Prompt",
        description="The prompt to generate an image from.",
    )
    image_size: ImageSizePreset | ImageSize = Field(
        "landscape_4_3",
        title="Image size",
        description="One of six sizes, or a width and a height of your own.",
    )
    num_inference_steps: int = Field(
        8,
        ge=1,
        le=8,
        title="Steps",
        description="Denoising steps. Fewer are faster and rougher.",
    )
    seed: Annotated[int | None, BeforeValidator(_exact_integer)] = Field(
        None,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same seed, prompt and settings give the same image. Empty draws one.",
    )
    sync_mode: bool = Field(
        False,
        title="Sync mode",
        description="The image comes inside the answer and stays out of fal's request history.",
    )
    num_images: int = Field(
        1, ge=1, le=4, title="Images", description="Images per request, each billed."
    )
    enable_safety_checker: bool = Field(
        True, title="Safety checker", description="Flagged images come back black."
    )
    output_format: OutputFormat = Field(
        "png", title="Format", description="The file format of the images."
    )
    acceleration: Acceleration = Field(
        "regular",
        title="Acceleration",
        description="Higher is faster and may change fine detail.",
    )
    enable_prompt_expansion: bool = Field(
        False,
        title="Prompt expansion",
        description="A language model adds detail to the prompt first (+$0.0025 per request).",
    )
    loras: tuple[LoraRef, ...] = Field(
        (), max_length=MAX_LORAS, title="Adapters", description="LoRA adapters, three at most."
    )

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of each image."""
        if isinstance(self.image_size, ImageSize):
            return self.image_size.width, self.image_size.height
        return PRESET_PIXELS[self.image_size]

    def payload(self) -> dict[str, Any]:
        """The body that the endpoint is sent."""
        return self.model_dump(mode="json", exclude_none=True)

    def with_seed(self) -> GenerationRequest:
        """The same request with a seed: its own, or a drawn one, so that it can be made again."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": secrets.randbelow(2**32)})
