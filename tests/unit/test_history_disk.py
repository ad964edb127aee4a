"""Faults of the disk: a stored file is whole, and a failed store can be tried again."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generation.errors import DatabaseBusy, DiskFull, StorageError
from generation.imagefile import CheckedImage, check_image, inspect_image
from generation.request import GenerationRequest
from generation.result import GenerationResult, ImageFile, Receipt, make_receipt
from history.journal import Journal
from history.metadata import read_recipe
from history.packing import pack
from history.records import Job, State
from history.store import History

REQUEST = GenerationRequest(prompt="a fox", seed=7, num_images=2)


def noise(kind: str, side: int = 96) -> CheckedImage:
    out = io.BytesIO()
    pixels = random.Random(kind).randbytes(side * side * 3)
    Image.frombytes("RGB", (side, side), pixels).save(out, kind)
    return check_image(out.getvalue())


IMAGES = (noise("PNG"), noise("JPEG"))
RESULT = GenerationResult(
    images=tuple(ImageFile(url=f"https://v3.fal.media/{n}") for n in range(2)), seed=7
)
RECEIPT: Receipt = make_receipt(
    REQUEST, RESULT, [image.info for image in IMAGES], backend="hosted", billed=True
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty") / "data"
    History.open(folder).close()
    return folder


@pytest.fixture
def folder(tmp_path: Path, empty: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "data"))


@pytest.fixture
def history(folder: Path) -> Iterator[History]:
    with History.open(folder) as opened:
        yield opened


def completed(history: History) -> Job:
    job = history.create("me", "hosted", REQUEST)
    history.advance(job.id, State.SUBMITTING)
    history.advance(job.id, State.SUBMITTED, handle={"request_id": "r"})
    return history.advance(job.id, State.COMPLETED, result=RESULT)


def files(folder: Path) -> list[Path]:
    return [path for kind in ("images", "previews") for path in folder.glob(f"{kind}/*/*")]


def assert_all_whole(folder: Path) -> None:
    for path in files(folder):
        if path.suffix == ".part":
            continue
        inspect_image(path.read_bytes())
        if path.suffix != ".webp":
            assert read_recipe(path.read_bytes()).values["prompt"] == "a fox"


def assert_stored(job: Job, folder: Path) -> None:
    assert job.state is State.STORED
    for image in job.images:
        assert sha256((folder / image.file).read_bytes()).hexdigest() == image.sha256
    assert len(files(folder)) == len(IMAGES)
    assert_all_whole(folder)


class Faults:
    """Counts every call that writes, and runs `fault` at the chosen one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.at: int | None = None
        self.fault: Callable[[], None] = lambda: None
        for name in ("fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        monkeypatch.setattr(Path, "open", self._open(Path.open))
        monkeypatch.setattr(Journal, "change", self._watched("commit", Journal.change))

    def _hit(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            self.fault()

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not (name == "mkdir" and os.path.isdir(args[0])):  # nothing would be written
                self._hit(name)
            return real(*args, **kwargs)

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = real(path, mode, *args, **kwargs)
            if "w" not in mode:
                return file
            write = file.write

            class Half(io.BytesIO):
                """Writes half, meets the fault, writes the rest."""

                def write(_self, data: Any) -> int:
                    write(data[: len(data) // 2])
                    file.flush()
                    self._hit("write")
                    return int(write(data[len(data) // 2 :]))

                def flush(_self) -> None:
                    file.flush()

                def fileno(_self) -> int:
                    return int(file.fileno())

                def close(_self) -> None:
                    file.close()

            self._hit("open")
            return Half()

        return call


@pytest.fixture
def faults(history: History, monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def count_calls(history: History, faults: Faults) -> list[str]:
    job = completed(history)
    faults.calls.clear()
    history.store(job.id, IMAGES, RECEIPT)
    return list(faults.calls)


def reset(folder: Path) -> None:
    for kind in ("images", "previews"):
        shutil.rmtree(folder / kind, ignore_errors=True)


def test_a_file_is_synced_before_its_name_and_the_name_before_the_commit(
    history: History, faults: Faults
) -> None:
    calls = count_calls(history, faults)
    names = [at for at, name in enumerate(calls) if name == "replace"]
    assert len(names) == len(IMAGES)
    for at in names:
        assert calls[at - 3 : at] == ["open", "write", "fsync"]
    assert calls[names[-1] + 1 :] == ["fsync"] * 3 + ["commit"]  # every folder, then the row


@pytest.mark.parametrize(
    ("code", "told"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, StorageError)],
)
def test_a_failure_at_any_write_leaves_no_part_and_can_be_retried(
    history: History, folder: Path, faults: Faults, code: int, told: type[StorageError]
) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    reset(folder)
    calls = count_calls(history, faults)
    assert {"open", "write", "fsync", "replace", "mkdir", "commit"} <= set(calls)
    for at in range(len(calls) - 1):  # the commit has a test of its own
        reset(folder)
        job = completed(history)
        faults.calls.clear()
        faults.at, faults.fault = at, fail
        with pytest.raises(told) as caught:
            history.store(job.id, IMAGES, RECEIPT)
        assert type(caught.value) is told
        faults.at = None
        assert history.get(job.id, "me").state is State.COMPLETED
        assert [path for path in files(folder) if path.suffix == ".part"] == []
        assert_all_whole(folder)
        assert_stored(history.store(job.id, IMAGES, RECEIPT), folder)


@pytest.mark.parametrize("error", [DiskFull(), DatabaseBusy()])
def test_a_commit_that_fails_leaves_the_job_completed(
    history: History, folder: Path, faults: Faults, error: StorageError
) -> None:
    def fail() -> None:
        raise error

    job = completed(history)
    faults.calls.clear()
    faults.at, faults.fault = len(count_calls(history, faults)) - 1, fail
    reset(folder)
    faults.calls.clear()
    with pytest.raises(type(error)):
        history.store(job.id, IMAGES, RECEIPT)
    faults.at = None
    assert history.get(job.id, "me").state is State.COMPLETED
    assert_stored(history.store(job.id, IMAGES, RECEIPT), folder)


def test_of_two_who_store_at_once_the_first_decides(
    history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def together(*args: Any) -> Any:
        both.wait()
        return pack(*args)

    monkeypatch.setattr("history.store.pack", together)
    job = completed(history)
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda images: history.store(job.id, images, RECEIPT), (IMAGES, IMAGES[::-1]))
        )
    assert done[0] == done[1]
    assert_stored(done[0], folder)


def in_child(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Run `work` in a forked process, killed after some seconds; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def test_a_process_killed_at_any_write_leaves_a_usable_folder(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def until(folder: Path, at: int) -> Callable[[], None]:
        def work() -> None:
            history = History.open(folder)
            job = completed(history)
            faults = Faults(monkeypatch)
            faults.at, faults.fault = at, kill
            history.store(job.id, IMAGES, RECEIPT)

        return work

    killed = 0
    for at in range(200):
        folder = shutil.copytree(empty, tmp_path / str(at))
        ended = in_child(until(folder, at))
        assert ended in (signal.SIGKILL, 0)
        with History.open(folder) as history:
            assert history.notice is None
            [job] = history.search("me")
            assert_all_whole(folder)
            if ended == 0:
                assert_stored(job, folder)
                break
            killed += 1
            assert job.state is State.COMPLETED
            assert history.unfinished() == [job]
            assert_stored(history.store(job.id, IMAGES, RECEIPT), folder)
    assert killed > 12


def test_a_process_killed_at_any_moment_loses_no_job(folder: Path, tmp_path: Path) -> None:
    """Time, not place, decides here; what the child says it committed must be there."""
    ledger = tmp_path / "ledger"

    def work() -> None:
        history = History.open(folder)
        with ledger.open("a", buffering=1) as said:
            while True:
                job = completed(history)
                print(job.id, file=said)
                history.store(job.id, IMAGES, RECEIPT)
                print(job.id, "stored", file=said)

    for seconds in (0.1, 0.23, 0.31):
        assert in_child(work, kill_after=seconds) == signal.SIGKILL
        with History.open(folder) as history:
            assert history.notice is None
            known = {job.id: job for job in history.search("me", limit=500)}
            assert_all_whole(folder)
            for line in ledger.read_text().splitlines():
                job_id, _, stored = line.partition(" ")
                assert not stored or known[job_id].state is State.STORED
                assert job_id in known
            for job in history.unfinished():
                if job.state is State.COMPLETED:
                    history.store(job.id, IMAGES, RECEIPT)
