"""One owner per data folder: two would resume, and pay for, the same jobs."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from generation.errors import DataFolderInUse


def take_lease(folder: Path) -> FileLock:
    """Create `folder` for this user only and lock it until released or until the process ends.

    Raises:
        DataFolderInUse: another playground has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Not per thread: `History.close` may run in another one.
    lease = FileLock(folder / "playground.lock", thread_local=False)
    try:
        lease.acquire(blocking=False)
    except Timeout as exc:
        raise DataFolderInUse(folder=str(folder)) from exc
    return lease
