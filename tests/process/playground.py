"""`python app.py` as a process of its own, seen from the test that started it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from gradio_client import Client

ROOT = Path(__file__).resolve().parents[2]
KEY = "test-id:test-secret"
LIFETIME = 1200  # seconds; the kernel ends a playground that its test forgot
PATIENCE = 90.0  # seconds to answer: five on an idle machine
T = TypeVar("T")
ADDRESS = re.compile(r"Running on local URL: +(http://\S+)")
APP = ("app.py",)
# An alarm survives exec. Set in a process of its own: ours has threads, and forking Python
# code from it could hang.
BOUNDED = (
    "import os, signal, sys;"
    f"signal.alarm({LIFETIME});"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def clean_environment(directory: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the developer's own: no key, no proxy, no data folder, no home."""
    own = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "NO_PROXY": "127.0.0.1,localhost",
        "PLAYGROUND_DATA_DIR": str(directory / "data"),
        "GRADIO_TEMP_DIR": str(directory / "gradio"),
        "PYTHONUNBUFFERED": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # where nothing listens: the Hub is down
    }
    return own | dict(extra)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Playground:
    """A running page: where it is, what it wrote, and how it ends."""

    process: subprocess.Popen[bytes]
    url: str
    directory: Path
    log_path: Path

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def temp_dir(self) -> Path:
        """Gradio's own folder of uploads and returned files."""
        return self.directory / "gradio"

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def http(self, **options: Any) -> httpx.Client:
        """A browser without a browser: keeps cookies, follows nothing."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=60, **options)

    def client(self, **options: Any) -> Client:
        """A Gradio client that puts what it downloads beside the other files of the test."""
        downloads = self.directory / "downloads"
        return Client(self.url, verbose=False, download_files=str(downloads), **options)

    def kill(self) -> None:
        """SIGKILL: no handler of it runs."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """SIGTERM, as a service manager does; its exit status."""
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def playground(
    directory: Path,
    *environments: Mapping[str, str],
    program: tuple[str, ...] = APP,
    cwd: Path = ROOT,
    python: str = sys.executable,
) -> Iterator[Playground]:
    """Run the page until the block ends; `environments` are laid over a clean one."""
    directory.mkdir(parents=True, exist_ok=True)
    extra = {name: value for some in environments for name, value in some.items()}
    environment = clean_environment(directory, extra)
    page = _started(directory, partial(run_python, program, cwd=cwd, python=python), environment)
    try:
        yield page
    finally:
        page.kill()


def _started(
    directory: Path, run: Callable[..., subprocess.Popen[bytes]], environment: dict[str, str]
) -> Playground:
    number = len(list(directory.glob("playground-*.log")))
    log_path = directory / f"playground-{number}.log"
    # Where the search for a port begins: Gradio takes the next one if this is gone meanwhile.
    environment = {**environment, "GRADIO_SERVER_PORT": str(free_port())}
    page = Playground(run(environment, log_path), "", directory, log_path)
    try:
        page.url = wait_for("an address", lambda: _address(page), PATIENCE)
        wait_for("HTTP 200", lambda: _answers(page), PATIENCE)
    except BaseException as exc:
        page.kill()
        raise AssertionError(f"the playground did not start:\n{page.log()}") from exc
    return page


def _address(page: Playground) -> str | None:
    assert page.process.poll() is None, "it ended"
    found = ADDRESS.search(page.log())
    # All addresses of this machine; the tests use one.
    return found[1].replace("0.0.0.0", "127.0.0.1") if found else None


def _answers(page: Playground) -> bool:
    with contextlib.suppress(httpx.TransportError), page.http() as http:
        return http.get("/").status_code == 200
    return False


def run_python(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    log_path: Path,
    *,
    cwd: Path = ROOT,
    python: str = sys.executable,
) -> subprocess.Popen[bytes]:
    """A Python that writes to a file and can't outlive its time, not even without its test."""
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [python, "-c", BOUNDED, *arguments],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for(what: str, true: Callable[[], T | None], timeout: float = 60.0) -> T:
    """Ask again until the answer is truthy, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return found
