"""One page for the tests that only ask it things, in front of a stand-in whose jobs are instant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.playground import KEY, LIFETIME, Playground, playground
from tests.standins.fal_process import FalProcess, fal_process


@pytest.fixture(scope="session")
def fal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FalProcess]:
    directory = tmp_path_factory.mktemp("fal")
    options = ("--job-seconds", "0", "--key", KEY, "--lifetime", str(LIFETIME))
    with fal_process(directory, *options) as process:
        yield process


@pytest.fixture(scope="session")
def page(fal: FalProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Private, with the owner's key."""
    directory = tmp_path_factory.mktemp("page")
    with playground(directory, fal.environment, {"FAL_KEY": KEY}) as running:
        yield running
