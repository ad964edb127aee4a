"""No test can spend money: fal is a stand-in on loopback, and nothing else can be reached.

`fal_client` reads its hosts when it is imported, so the stand-in runs before any test module
is: one per process, therefore one per worker of `pytest -n`. Whatever imports `fal_client`
must not be imported at the top of this file.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from history.store import History
from tests.faults.seen import Seen
from tests.standins.fal import FalStandIn
from tests.standins.fal_jobs import Timing
from tests.standins.postgres import PostgresServer, postgres_server

if TYPE_CHECKING:
    from tests.faults.bench import Bench

pytest.register_assert_rewrite("tests.faults.bench")

TIMING = Timing(queue_seconds=0.05, queue_length=3, job_seconds=0.1)
KEYS = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
STAND_IN = pytest.StashKey[FalStandIn]()
FORBIDDEN: list[object] = []
"""Addresses that a test tried to reach although they aren't on this machine."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: no keys, no proxies, and fal's hosts lead here."""
    if "fal_client" in sys.modules:
        raise pytest.UsageError("fal_client was imported before its hosts were set")
    for name in (*KEYS, *PROXIES, *map(str.lower, PROXIES)):
        os.environ.pop(name, None)
    stand_in = FalStandIn(TIMING).start()
    config.add_cleanup(stand_in.close)
    config.stash[STAND_IN] = stand_in
    home = tempfile.TemporaryDirectory()  # where nobody has done `fal auth login`
    config.add_cleanup(home.cleanup)
    os.environ |= stand_in.environment | {
        "FAL_HOME_DIR": home.name,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }
    socket.socket.connect = _guarded(socket.socket.connect)  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests in a browser come last: Playwright keeps an event loop running in this
    thread until the session ends, and no other test could run one of its own."""
    browsing = {item.path for item in items if "browser" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in browsing)


def _guarded(connect: Callable[..., None]) -> Callable[..., None]:
    def guarded(self: socket.socket, address: Any) -> None:
        if self.type == socket.SOCK_STREAM and not _is_here(self, address):
            FORBIDDEN.append(address)
            raise AssertionError(f"a test connects to {address!r}")
        connect(self, address)

    return guarded


def _is_here(sock: socket.socket, address: Any) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the stand-in without faults, its clock running; none reaches out."""
    stand_in = request.config.stash[STAND_IN]
    stand_in.clear_faults()
    stand_in.release()
    yield
    stand_in.clear_faults()
    stand_in.release()
    reached, FORBIDDEN[:] = FORBIDDEN[:], []
    assert reached == []


@pytest.fixture
def fal(pytestconfig: pytest.Config) -> FalStandIn:
    """The stand-in of this process. A job waits 0.05 s in its queue, then takes 0.1 s."""
    return pytestconfig.stash[STAND_IN]


@pytest.fixture
def seen(fal: FalStandIn) -> Seen:
    """What the stand-in saw since this test began."""
    return Seen(fal.ledger)


@pytest.fixture(scope="session")
def empty_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database is at its newest revision: migrating takes a while."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    History.open(folder).close()
    return folder


@pytest.fixture
def data_folder(tmp_path: Path, empty_data: Path) -> Path:
    return Path(shutil.copytree(empty_data, tmp_path / "data"))


@pytest.fixture
def history(data_folder: Path) -> Iterator[History]:
    with History.open(data_folder) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of this session's own; one per worker of `pytest -n`."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def empty_server_database(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of a database at its newest revision, to be copied."""
    address = postgres.new_database()
    History.open(tmp_path_factory.mktemp("empty"), address).close()
    return address.rpartition("/")[2]


@pytest.fixture
def server_database(postgres: PostgresServer, empty_server_database: str) -> Iterator[str]:
    """The address of an empty database of the test's own."""
    address = postgres.new_database(empty_server_database)
    yield address
    postgres.drop(address)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_history(request: pytest.FixtureRequest, data_folder: Path) -> Iterator[History]:
    """A history in a file, and one on a server."""
    on_server = request.param == "postgresql"
    address = request.getfixturevalue("server_database") if on_server else None
    with History.open(data_folder, address) as opened:
        yield opened


@pytest.fixture
def new_bench(data_folder: Path, fal: FalStandIn, seen: Seen) -> Iterator[Callable[..., Bench]]:
    """Makes the test's one bench, with a pace of its own: `new_bench(deadline=0.5)`."""
    from tests.faults.bench import Bench  # not before the stand-in runs

    with ExitStack() as open_benches:
        yield lambda **pace: open_benches.enter_context(Bench(data_folder, fal, seen, **pace))


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """A runner with the hosted backend in front of the stand-in, at a quick pace."""
    return new_bench()
