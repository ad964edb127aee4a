"""A cluster for tests and benchmarks, its replicas' processes, and crowds of jobs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]
ALONE: Final = 20.0  # seconds for all its processes to end


class Cluster:
    """`cluster.py` in a process of its own, on a port of its own. Ends all that it started."""

    def __init__(self, data: Path) -> None:
        self._port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pool.cluster", str(self._port)],
            cwd=ROOT,
            env={**os.environ, "PLAYGROUND_DATA_DIR": str(data)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self._port}/{name}"

    def deploy(self, name: str, engine: str, replicas: int, sets: int = 16) -> str:
        """Its address, once all replicas are there. Blocks."""
        print(name, engine, replicas, sets, file=_pipe(self._process.stdin), flush=True)
        for line in _pipe(self._process.stdout):
            if line.strip() == "ready":
                return self.address(name)
        raise RuntimeError("the cluster ended")

    def replicas(self, name: str) -> list[psutil.Process]:
        """The processes of a pool's replicas, as Ray names them."""
        title = f"ray::ServeReplica:{name}:"
        return [one for one in self._children() if " ".join(_command(one)).startswith(title)]

    def close(self) -> None:
        """By its stdin's end; what is left after a while, by force."""
        mine = [*self._children(), psutil.Process(self._process.pid)]
        _pipe(self._process.stdin).close()
        _gone, left = psutil.wait_procs(mine, ALONE)
        for process in left:
            process.send_signal(signal.SIGKILL)
        self._process.wait(ALONE)
        _pipe(self._process.stdout).close()

    def _children(self) -> list[psutil.Process]:
        children: list[psutil.Process] = psutil.Process(self._process.pid).children(recursive=True)
        return children


@contextmanager
def running_cluster(data: Path) -> Iterator[Cluster]:
    """A cluster whose pools take adapters from this data folder."""
    cluster = Cluster(data)
    try:
        yield cluster
    finally:
        cluster.close()


def _command(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []
    return words


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
