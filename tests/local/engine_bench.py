"""An engine with an ear: what it told, and how often its transformer ran."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.local.engine import Engine
from backends.local.job import Job
from backends.local.loading import Loaded
from generation.events import Running
from generation.lora_file import LoraFile
from generation.request import GenerationRequest, ImageSize
from generation.result import GenerationResult

Pixels = npt.NDArray[np.uint8]


def wanted(**fields: Any) -> GenerationRequest:
    small = {"prompt": "a fox", "image_size": ImageSize(width=64, height=48), "seed": 7}
    return GenerationRequest(**(small | fields))


def pixels(result: GenerationResult, index: int = 0) -> Pixels:
    data = result.images[index].data
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


class Bench:
    """Runs requests; `told` are the last run's events, `forwards` those of its transformer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told: list[Running] = []
        self.forwards = 0

    @property
    def loaded(self) -> Loaded:
        loaded = self.engine._loaded
        assert loaded is not None, "nothing has run yet"
        return loaded

    def count_forwards(self) -> None:
        """From now on; the pipeline must be loaded."""

        def counted(*_: Any) -> None:
            self.forwards += 1

        self.loaded.pipe.transformer.register_forward_pre_hook(counted)

    def run(
        self,
        stop: Callable[[], bool] = lambda: False,
        files: dict[str, LoraFile] | None = None,
        **fields: Any,
    ) -> GenerationResult:
        self.told = []
        self.forwards = 0
        return self.engine.run(Job.of(wanted(**fields), files or {}), self.told.append, stop)

    @property
    def steps(self) -> list[int]:
        return [event.step for event in self.told if event.step is not None]
