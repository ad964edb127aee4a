"""Copies of the Hub's files on this machine: each fetched once, whole or not there at all."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path
from typing import Final

from filelock import AcquireReturnProxy, FileLock

from generation.errors import AdapterNotFound, AdapterRefused, AdapterUnavailable, HubUnreachable
from lora_registry.cards import WeightFile
from lora_registry.hub import Hub
from lora_registry.hub_source import Repository
from lora_registry.parts import Progress
from lora_registry.weights import disk_said, put_in_place
from lora_registry.work import Work

ATTEMPTS: Final = 3
PAUSE: Final = 1.0


class Copies:
    """Files below `folder`, by repository, commit and name; a commit's files never change."""

    def __init__(self, hub: Hub, folder: Path, work: Work) -> None:
        self._hub = hub
        self._folder = folder
        self._work = work
        self._listeners: dict[Path, list[Progress]] = {}
        self._lock = threading.Lock()

    def path(self, repo: str, sha: str, file: str) -> Path:
        """Where a copy lies, once it is there. No name from outside is part of it."""
        digest = hashlib.sha256(f"{repo}\n{sha}\n{file}".encode()).hexdigest()[:40]
        return self._folder / f"{digest}.safetensors"

    async def bring(self, found: Repository, file: str, progress: Progress | None) -> Path:
        """A file of a repository, brought here once; `progress` is called from another thread.

        Raises:
            AdapterError: it could not be fetched or kept, or is no safetensors file.
        """
        path = self.path(found.card.id, found.sha, file)
        if progress is not None:
            with self._lock:
                self._listeners.setdefault(path, []).append(progress)
        return await self._work.run(path, lambda: self._bring(found, file, path))

    def _bring(self, found: Repository, file: str, path: Path) -> Path:
        """In a thread: go on where an earlier attempt ended, then look at it whole."""
        name = f"{found.card.id}/{file}"
        try:
            with disk_said(name):
                self._folder.mkdir(parents=True, exist_ok=True)
                with self._alone_on(path):
                    if not path.exists():
                        part = path.with_suffix(".part")
                        self._fetch(found, file, part, path)
                        _check(found.file(file), part, name)
                        put_in_place(part, path, name)
            return path
        except AdapterNotFound as exc:
            raise found.refused(exc) from exc
        finally:
            with self._lock:
                self._listeners.pop(path, None)

    def _alone_on(self, path: Path) -> AcquireReturnProxy[FileLock]:
        """Another process on this folder may be fetching the same file: wait for it."""
        lock = FileLock(path.with_suffix(".lock"))
        return lock.acquire(poll_interval=0.1, cancel_check=lambda: self._hub.closed)

    def _fetch(self, found: Repository, file: str, part: Path, path: Path) -> None:
        def progress(have: int, total: int | None) -> None:
            for listener in list(self._listeners.get(path, ())):
                listener(have, total)

        for attempt in range(1, ATTEMPTS + 1):
            try:
                with part.open("a+b") as to:
                    self._hub.download(found.card.id, found.sha, file, to, progress)
                return
            except (HubUnreachable, AdapterUnavailable) as exc:
                if attempt == ATTEMPTS or self._hub.closed:
                    reason = str(exc.facts["reason"])
                    raise AdapterUnavailable(name=f"{found.card.id}/{file}", reason=reason) from exc
                time.sleep(PAUSE * attempt)


def _check(file: WeightFile, part: Path, name: str) -> None:
    """The copy against what the Hub said of the file; another one is removed.

    Raises:
        AdapterRefused: it has another size or other bytes.
    """
    size = part.stat().st_size
    right = file.size in (None, size) and file.sha256 in (None, sha256_of(part))
    if not right:
        part.unlink()
        raise AdapterRefused(name=name, reason="its bytes are not those that the Hub lists")


def sha256_of(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def preselected(files: tuple[WeightFile, ...]) -> WeightFile:
    """The file that is most likely meant: the standard name, else the newest, the last step."""
    return max(files, key=lambda file: (is_standard(file), file.date or "", *_step(file.name)))


def needs_choice(files: tuple[WeightFile, ...]) -> bool:
    """Whether it takes a person to say which file is meant."""
    return len(files) > 1 and not any(map(is_standard, files))


def is_standard(file: WeightFile) -> bool:
    """Whether it has the name that diffusers gives and looks for."""
    return file.name == "pytorch_lora_weights.safetensors"


def _step(name: str) -> tuple[int, int, str]:
    """Trainers number what they save on the way, and leave the number out of the last one."""
    numbers = re.findall(r"\d+", name.rpartition("/")[2].removesuffix(".safetensors"))
    steps = [int(number[:12]) for number in numbers if len(number) >= 3]
    return (0, steps[-1], name) if steps else (1, 0, name)
