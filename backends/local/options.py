"""What the owner decides about the local pipeline; free of torch, so that the page may read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from settings import Settings


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`model` and `safety` are Hub ids or folders; `unchecked` runs without a safety checker
    where none can be loaded; `data` is the folder where validation records are."""

    model: str
    device: Literal["auto", "cuda", "cpu"] = "auto"
    safety: str = "Falconsai/nsfw_image_detection"
    unchecked: bool = False
    token: SecretStr | None = None
    hub: str = "https://huggingface.co"
    data: Path | None = None

    @staticmethod
    def of(settings: Settings) -> LocalOptions:
        """The part of the settings that this backend reads."""
        return LocalOptions(
            model=settings.local_model,
            device=settings.local_device,
            safety=settings.local_safety,
            unchecked=settings.local_unchecked,
            token=settings.hf_token,
            hub=settings.hub,
            data=settings.data_dir,
        )
