"""One owner per data folder: two would resume, and pay for, the same jobs."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from generation.errors import DataFolderInUse, DataFolderUnusable


def take_lease(folder: Path) -> FileLock:
    """Create `folder` for this user only and lock it until released or until the process ends.

    Raises:
        DataFolderInUse: another playground has it.
        DataFolderUnusable: it can't be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _lock(folder)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise DataFolderUnusable(folder=str(folder), reason=reason) from exc


def _lock(folder: Path) -> FileLock:
    # Not per thread: `History.close` may run in another one.
    lease = FileLock(folder / "playground.lock", thread_local=False)
    try:
        lease.acquire(blocking=False)
    except Timeout as exc:  # an OSError too, hence raised as ours at once
        raise DataFolderInUse(folder=str(folder)) from exc
    return lease
