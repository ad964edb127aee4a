"""History: the only face of this package for the rest of the playground."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock
from sqlalchemy import Engine

from generation.allowance import Charge
from generation.errors import DiskFull, NotInHistory
from generation.imagefile import CheckedImage
from generation.request import GenerationRequest
from generation.result import Receipt
from history import journal as rows
from history.database import (
    BUSY_TIMEOUT,
    is_sqlite,
    open_engine,
    set_aside_if_damaged,
    storage_faults,
    url_of,
)
from history.files import ImageFolder, preview_name, preview_of
from history.folder import take_folder
from history.leases import SECONDS, Alone, Lease, Leases
from history.overview import Overview
from history.packing import pack
from history.records import IllegalTransition, Job, State
from history.spending import Spending
from history.steps import JobSteps, stored_columns

RESERVE: Final = 64 * 1024 * 1024  # bytes that a job may need: four images and the log
MAX_ROWS: Final = 500

_JOB_ID = re.compile(r"[0-9a-f]{38}")


class History(JobSteps):
    """Jobs and their images, below one data folder. Synchronous and thread-safe.

    Methods that take an `owner` answer `NotInHistory` for anybody else's job,
    as for one that doesn't exist. The others are for the runner. Every method
    may raise `StorageError`; nothing was changed then.
    """

    def __init__(
        self,
        folder: Path,
        lock: FileLock,
        engine: Engine,
        lease: Lease | None,
        notice: str | None,
        app_version: str,
    ) -> None:
        self.notice = notice
        """One sentence about what happened while opening, or None."""
        self.leases = Leases(engine, lease) if lease else None
        """This process's jobs among those of others; None where there can be no others."""
        self._folder = folder
        self._lock = lock
        self._engine = engine
        self._app_version = app_version
        super().__init__(rows.Journal(engine), lease or Alone())
        self.spending = Spending(engine)
        """What visitors took of the owner's, and the switch that ends it."""
        self.overview = Overview(engine)
        """Everybody's jobs, for the owner of the page."""
        self._ids = rows.Ids(self._journal.newest_id())
        self._images = ImageFolder(folder, self._claims.mark)
        self._files = threading.Lock()  # held by whoever removes files or forbids it
        self._writers = [threading.Lock() for _ in range(16)]

    @classmethod
    def open(
        cls,
        data_dir: Path,
        database_url: str | None = None,
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        app_version: str = "development",
        lease_seconds: float = SECONDS,
    ) -> Self:
        """Take the data folder (made if absent, for this user only) and its database.

        `database_url` is a PostgreSQL's, which others may share together with the folder;
        without one it is a file in the folder. `busy_timeout` is in seconds. `app_version`
        goes into each recipe. After `lease_seconds` of silence others take over its jobs.

        Raises:
            DataFolderInUse: another playground has it.
            StorageError: the database can't be opened.
            OSError: the folder can't be made or written to.
        """
        with ExitStack() as undo:
            url = url_of(data_dir, database_url)
            lock = take_folder(data_dir, alone=is_sqlite(url))
            undo.callback(lock.release)
            with storage_faults():
                notice = set_aside_if_damaged(url, busy_timeout)
            engine = open_engine(url, busy_timeout)
            undo.callback(engine.dispose)
            lease = None if is_sqlite(url) else Lease(secrets.token_hex(6), lease_seconds)
            history = cls(data_dir, lock, engine, lease, notice, app_version)
            undo.pop_all()
        return history

    def close(self) -> None:
        """Let go of the database and of the data folder."""
        self._engine.dispose()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the runner's side -----------------------------------------------------

    def create(
        self,
        owner: str,
        backend: str,
        request: GenerationRequest,
        notices: tuple[str, ...] = (),
        charge: Charge | None = None,
    ) -> Job:
        """Write a job down, and reserve what it takes of the owner's, before anything is sent.

        Raises:
            DiskFull: less than `RESERVE` bytes are free; nothing was written.
            AllowanceError, InvalidRequest: it takes too much; nothing was written.
        """
        with storage_faults():
            if shutil.disk_usage(self._folder).free < RESERVE:
                raise DiskFull
        now = datetime.now(UTC)
        job = Job(
            id=self._ids.next(),
            owner=owner,
            backend=backend,
            request=request,
            state=State.INTENT,
            created=now,
            updated=now,
            notices=notices,
        )
        self._journal.add(job, charge, **self._claims.taken())
        return job

    def store(self, job_id: str, images: Sequence[CheckedImage], receipt: Receipt) -> Job:
        """Put the images of a COMPLETED job into files, and only then call it STORED.

        Each file is the image's own bytes with the recipe inside. After any failure
        the job is COMPLETED still and can be stored again; storing it twice
        makes one set of files.

        Raises:
            IllegalTransition: the job is neither COMPLETED nor STORED.
            ValueError: `images` is empty.
        """
        if not images:
            raise ValueError("a job without images isn't STORED")
        job = self._known(job_id)
        if job.state is not State.COMPLETED:
            return self._already_stored(job)
        marks = (self._app_version, self._claims.mark)
        packed = [pack(job, n, image, receipt, *marks) for n, image in enumerate(images)]
        with self._writing(job_id), storage_faults():
            job = self._known(job_id)
            if job.state is not State.COMPLETED:
                return self._already_stored(job)
            self._images.write((record.file, data) for record, data in packed)
            columns = stored_columns([record for record, _ in packed], receipt, job.result)
            mine = (rows.in_state(State.COMPLETED), self._claims.mine())
            stored = self._journal.change(job_id, *mine, **columns, **self._claims.free())
        return stored or self._refuse(job_id, "storing its images")

    def _already_stored(self, job: Job) -> Job:
        if job.state is State.STORED:
            return job
        raise IllegalTransition(job.id, job.state, "storing its images")

    # -- the visitor's side ----------------------------------------------------

    def get(self, job_id: str, owner: str) -> Job:
        """One job of the owner's.

        Raises:
            NotInHistory: there is none, it was deleted, or it is somebody else's.
        """
        job = self._journal.find(_id(job_id), rows.visible_to(owner))
        if job is None:
            raise NotInHistory
        return job

    def search(
        self,
        owner: str,
        query: str = "",
        *,
        limit: int = 50,
        before: str | None = None,
        favourites: bool = False,
    ) -> list[Job]:
        """The owner's jobs, newest first, whatever became of them.

        `query` is words that all occur in the prompt or an adapter's path, in
        any case and any place. `before` is the id of the last job seen, for the
        next page; `limit` is held between 1 and `MAX_ROWS`.
        """
        conditions = [rows.visible_to(owner), rows.matches(query)]
        if before is not None:
            conditions.append(rows.older_than(_id(before)))
        if favourites:
            conditions.append(rows.is_favourite())
        return self._journal.select(*conditions, limit=min(max(limit, 1), MAX_ROWS))

    def total_cost(self, owner: str, since: datetime) -> float:
        """US dollars on the receipts of the owner's jobs created since then.

        Deleted jobs count, purged ones don't. `since` has a time zone.
        """
        return self._journal.total_cost(owner, since)

    def favourite(self, job_id: str, owner: str, on: bool) -> Job:
        """Mark or unmark a job."""
        job = self._journal.change(_id(job_id), rows.visible_to(owner), favourite=on)
        return _present(job)

    def delete(self, job_id: str, owner: str) -> Job:
        """Hide a job until `restore` or `purge`; work under way goes on, for it may be paid for."""
        now = datetime.now(UTC)
        return _present(self._journal.change(_id(job_id), rows.owned_by(owner), deleted=now))

    def restore(self, job_id: str, owner: str) -> Job:
        """Undo `delete`."""
        with self._files:  # `purge` may be removing its files
            return _present(self._journal.change(_id(job_id), rows.owned_by(owner), deleted=None))

    def purge(self, older_than: datetime) -> int:
        """Really remove final jobs that were deleted before then; how many that were.

        Files go before rows: a purge that is cut short is finished by the next.
        """
        with self._files, storage_faults():
            gone = self._journal.select(rows.deleted_before(older_than), rows.final())
            months = {(job.created.year, job.created.month): job.created for job in gone}
            for created in months.values():
                self._images.remove(created, {job.id for job in gone})
            self._journal.remove(gone)
        return len(gone)

    def give(self, old: str, new: str) -> None:
        """All of an owner's jobs become another's, deleted ones too; in one transaction."""
        self._journal.give(old, new)

    def image_file(self, job_id: str, owner: str, index: int) -> Path:
        """The file of one image.

        Raises:
            NotInHistory: no such image for this owner, or its file was removed by hand.
        """
        for image in self.get(job_id, owner).images:
            path = self._images.path(image.file)
            if image.index == index and path.is_file():
                return path
        raise NotInHistory

    def preview_file(self, job_id: str, owner: str, index: int) -> Path:
        """A small WebP of one image (long side 512 pixels at most), or the image itself.

        Made when it is first asked for: nobody waits for it before the image is there.
        """
        image = self.image_file(job_id, owner, index)
        name = preview_name(job_id, self.get(job_id, owner).created, index)
        preview = self._images.path(name)
        with self._writing(job_id), suppress(OSError):  # a full disk: then the image serves
            if not preview.is_file() and (small := preview_of(image.read_bytes())):
                self._images.write([(name, small)])
        return preview if preview.is_file() else image

    def _writing(self, job_id: str) -> threading.Lock:
        """Held by who writes files of a job, so that two never write one; others go on."""
        return self._writers[hash(job_id) % len(self._writers)]


def _id(text: str) -> str:
    """An id as it came from outside, if it looks like one."""
    if not _JOB_ID.fullmatch(text):
        raise NotInHistory
    return text


def _present(job: Job | None) -> Job:
    if job is None:
        raise NotInHistory
    return job
