"""What the benchmarks share: spreads, tables, and processes with the CPU they took (Linux)."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
LOOPBACK: Final = "127.0.0.1"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Whatever is set on this machine must not steer what is measured.
_OURS: Final = ("FAL_", "GRADIO_", "PLAYGROUND_", "HF_", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_")


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing, in one unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def percentile(self, percent: int) -> float:
        """The value below which so many percent of them lie (nearest rank)."""
        ordered = sorted(self.values)
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    def show(self, digits: int = 2) -> str:
        """Median (lowest–highest)."""
        if not self.values:
            return "–"
        low, high = min(self.values), max(self.values)
        return f"{self.median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, the first one flush left."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([row[0].ljust(len(first)), *rest]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)


# -- processes -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, its process, and the seconds from start to its first 200.

    `start_cpu` are the CPU seconds of its process tree up to then.
    """

    url: str
    pid: int
    start_seconds: float
    start_cpu: float

    def cpu(self) -> float:
        """CPU seconds until now."""
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its descendants, ended ones included."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        number = int(stat.parent.name)
        children[int(fields[1])].append(number)
        ticks[number] = sum(map(int, fields[11:15]))  # utime, stime, and those of waited children
    family, found = [pid], 0
    for member in family:
        family += children[member]
        found += ticks.get(member, 0)
    return found / _TICKS


def clean_environment(**added: str) -> dict[str, str]:
    """This process's environment without what would steer the playground, and with `added`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"GRADIO_ANALYTICS_ENABLED": "False"} | added


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with closing(socket.socket()) as bound:
        bound.bind((LOOPBACK, 0))
        port: int = bound.getsockname()[1]
        return port


@contextmanager
def process(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    log: Path | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """`python …` in the repository; ended and waited for afterwards, whatever happened."""
    with log.open("a") if log else open(os.devnull, "w") as errors:
        running = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=dict(environment),
            stdin=stdin,
            stdout=errors if stdout is None else stdout,
            stderr=errors,
            text=True,
        )
        try:
            yield running
        finally:
            _end(running)


def _end(running: subprocess.Popen[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if running.poll() is None:
            running.send_signal(number)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                continue
    for stream in (running.stdin, running.stdout):
        if stream:
            stream.close()


@contextmanager
def gradio_server(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """A Gradio program, from the moment of its first HTTP 200. Its output is `folder`/log."""
    port, log = free_port(), folder / "log"
    launched = {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": LOOPBACK,
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_SSR_MODE": "False",
    }
    url, started = f"http://{LOOPBACK}:{port}", time.monotonic()
    with process(command, {**environment, **launched}, log=log) as running:
        _wait_for_200(url, running, log)
        seconds = time.monotonic() - started
        yield Server(url, running.pid, seconds, cpu_seconds(running.pid))


def _wait_for_200(
    url: str, running: subprocess.Popen[str], log: Path, seconds: float = 120
) -> None:
    """Ask until the page is there. Refused connections cost the server nothing."""
    until = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=30) as client:
        while time.monotonic() < until and running.poll() is None:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    raise RuntimeError(f"no answer from {url}:\n{log.read_text()[-3000:]}")
