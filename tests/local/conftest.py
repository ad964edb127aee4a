"""The tiny real pipeline, saved once, and engines that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backends.local.engine import Engine
from backends.local.options import LocalOptions
from tests.local.engine_bench import Bench
from tests.standins.tiny_pipeline import save_tiny_classifier, save_tiny_pipeline

torch.set_num_threads(1)  # threads that wait for each other take longer than such small products


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalOptions:
    """Options that lead to a tiny pipeline and a tiny classifier that flags nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny_pipeline(folder / "model")
    safety = save_tiny_classifier(folder / "safety")
    return LocalOptions(model=str(model), device="cpu", safety=str(safety))


@pytest.fixture
def bench(tiny: LocalOptions) -> Bench:
    """A fresh engine, and what it tells."""
    return Bench(Engine(tiny))


@pytest.fixture
def bench_with(tiny: LocalOptions) -> Callable[..., Bench]:
    """The same with other options: `bench_with(unchecked=True)`."""
    return lambda **changes: Bench(Engine(replace(tiny, **changes)))


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    """A pipeline whose text encoder can't write."""
    return save_tiny_pipeline(tmp_path / "untied", tied=False)
