"""The safety checker: an image classifier that runs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from backends.local.fetching import Report, find_model
from backends.local.job import Stop
from backends.local.options import LocalOptions
from generation.errors import BackendUnavailable, InvalidRequest

UNSAFE: Final = ("nsfw", "unsafe", "porn", "hentai", "sexy", "explicit")  # labels that flag
UNCHECKED: Final = "No safety checker could be loaded here: the images were not checked."


class Checker(Protocol):
    """Says of each image whether it is flagged."""

    def __call__(self, images: Sequence[Image.Image]) -> tuple[bool, ...]: ...


def load_checker(options: LocalOptions, report: Report, stop: Stop) -> Checker | None:
    """The classifier; None where there is none and the owner lets images go unchecked.

    Raises:
        InvalidRequest: there is none, so a request that asks for it can't be met.
    """
    try:
        return Classifier(find_model(options.safety, options, report, stop))
    except BackendUnavailable as exc:
        if options.unchecked:
            return None
        problem = (
            f"can't be met, since {exc.facts['reason']}; switch it off, or let the owner set "
            "PLAYGROUND_LOCAL_SAFETY or PLAYGROUND_LOCAL_UNCHECKED"
        )
        raise InvalidRequest(field="enable_safety_checker", problem=problem) from exc


class Classifier:
    """A `transformers` image classifier one of whose labels stands for unsafe.

    Raises:
        BackendUnavailable: the folder holds no such model.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self._model = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, local_files_only=True
            ).eval()
        except (OSError, ValueError, KeyError, TypeError) as exc:
            reason = f"{folder.name!r} can't be read as an image classifier ({type(exc).__name__})"
            raise BackendUnavailable(backend="local", reason=reason) from exc
        self._flags = _unsafe_labels(self._model.config.id2label)
        if not self._flags:
            reason = f"{folder.name!r} has no label for unsafe images"
            raise BackendUnavailable(backend="local", reason=reason)

    def __call__(self, images: Sequence[Image.Image]) -> tuple[bool, ...]:
        """On the processor: it is small, and the GPU's memory is for the images."""
        return tuple(self._flagged(image) for image in images)

    def _flagged(self, image: Image.Image) -> bool:
        inputs: Any = self._processor(images=image.convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            scores = self._model(**inputs).logits[0]
        return int(scores.argmax()) in self._flags


def _unsafe_labels(labels: dict[int, str]) -> frozenset[int]:
    return frozenset(int(n) for n, label in labels.items() if label.lower() in UNSAFE)


def blackened(image: Image.Image, flagged: bool) -> Image.Image:
    """A flagged image keeps its size and nothing else, as on the hosted endpoint."""
    return Image.new("RGB", image.size) if flagged else image
