"""A stand-in and a bare client for its own tests."""

from collections.abc import Iterator

import pytest

from tests.standins.fal import FalStandIn
from tests.standins.raw_client import RawClient


@pytest.fixture
def fal() -> Iterator[FalStandIn]:
    with FalStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def client(fal: FalStandIn) -> Iterator[RawClient]:
    with RawClient(fal) as client:
        yield client
