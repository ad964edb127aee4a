"""The real engine with a tiny model, for tests that know nothing of torch."""

from __future__ import annotations

import atexit
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from backends.local.engine import Engine
from backends.local.options import LocalOptions
from tests.standins.tiny_pipeline import save_tiny_classifier, save_tiny_pipeline


def tiny_engine(options: LocalOptions) -> Engine:
    """With these options, but for the models."""
    torch.set_num_threads(1)  # threads that wait for each other take longer than tiny products
    model, safety = _models()
    return Engine(replace(options, model=str(model), safety=str(safety)))


@cache
def _models() -> tuple[Path, Path]:
    """The pipeline and the classifier: saved once a process, gone with it."""
    kept = tempfile.TemporaryDirectory()
    atexit.register(kept.cleanup)
    folder = Path(kept.name)
    return save_tiny_pipeline(folder / "model"), save_tiny_classifier(folder / "safety")
