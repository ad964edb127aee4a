"""The data folder, and its lock: two on one SQLite would resume, and pay for, the same jobs."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from generation.errors import DataFolderInUse, DataFolderUnusable


def take_folder(folder: Path, *, alone: bool) -> FileLock:
    """Create `folder` for this user only; if `alone`, lock it until released or the process ends.

    Raises:
        DataFolderInUse: another playground has it.
        DataFolderUnusable: it can't be made or written.
    """
    # Not per thread: `History.close` may run in another one.
    lock = FileLock(folder / "playground.lock", thread_local=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if alone:
            _acquire(lock, folder)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise DataFolderUnusable(folder=str(folder), reason=reason) from exc
    return lock


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout as exc:  # an OSError too, hence raised as ours at once
        raise DataFolderInUse(folder=str(folder)) from exc
