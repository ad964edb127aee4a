"""`app.py` on a disk that a test can fill: each fault lasts while its file is in FAULTS."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import app
import jobs.flight

FAULTS = Path(os.environ["FAULTS"])
NO_ROOM = FAULTS / "no-room"  # the system says so before anything is written
NO_SPACE = FAULTS / "no-space"  # nobody says so: the write itself fails

_disk_usage, _fsync = shutil.disk_usage, os.fsync


def disk_usage(folder: Any) -> Any:
    return SimpleNamespace(free=0) if NO_ROOM.exists() else _disk_usage(folder)


def fsync(file: int) -> None:
    if NO_SPACE.exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _fsync(file)


if __name__ == "__main__":
    shutil.disk_usage = disk_usage  # type: ignore[assignment]
    os.fsync = fsync  # type: ignore[assignment]
    jobs.flight.STORE_AGAIN = 0.1  # type: ignore[misc]
    app.main()
