"""A PostgreSQL on loopback, below a temporary folder, for as long as a test session lasts.

The binaries are Debian's (`postgresql`), of whatever version is there. Nothing of a
server that the machine may run otherwise is used or touched.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

USER: Final = "playground"
PATIENCE: Final = 30.0
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
}


class PostgresServer:
    """A server that can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self._folder = folder
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        _run("initdb", "-D", str(folder), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync",
             "--locale=C.UTF-8").check_returncode()  # fmt: skip

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Serve, and wait until somebody can connect."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [_binary("postgres"), "-D", str(self._folder), "-p", str(self.port), *settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_server_user())
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """As a crash does it: every connection ends at once, and what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE)
            self._process = None

    def new_database(self, template: str = "template1") -> str:
        """A database of its own, like the template; its address."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, address: str) -> None:
        self._execute(f"DROP DATABASE {address.rpartition('/')[2]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server without databases of ours; it and its files are gone at the end."""
    # Not pytest's own temporary folder: that is closed to other users, and root may not serve.
    folder = Path(tempfile.mkdtemp(prefix="playground-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, **_server_user())
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary(name: str) -> str:
    """Debian keeps the server's programs outside the path, by version."""
    installed = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    found = installed[-1] if installed else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name}: run apt-get install postgresql")
    return found


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [_binary(name), *arguments]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, **_server_user())


def _server_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; then as the package's own user, or as nobody."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in known else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid}
