"""Adapters that visitors dropped on the page: each owner's in a folder of their own.

uploads/{hash of the owner}/{sha-256}.safetensors      and .json: the name it had
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from generation.errors import AdapterNotFound, AdapterRefused
from lora_format.header import header_size
from lora_registry.parts import MAX_FILE
from lora_registry.triggers import MAX_LENGTH
from lora_registry.weights import LENGTH, disk_said, put_in_place

PREFIX: Final = "upload:"


class UploadWriter:
    """Takes a file piece by piece; once its context has ended, `reference` names it."""

    def __init__(self, file: tempfile._TemporaryFileWrapper[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._hash = hashlib.sha256()
        self._start = b""
        self.size = 0
        self.reference = ""

    def write(self, data: bytes) -> int:
        """Append bytes; refuses as soon as they can be no safetensors file.

        Raises:
            AdapterRefused: too large, or of another format.
            AdapterUnavailable: the disk is full.
        """
        self.size += len(data)
        if self.size > MAX_FILE:
            raise AdapterRefused(name=self._name, reason=f"it is larger than {MAX_FILE >> 30} GiB")
        if len(self._start) < LENGTH:
            self._start += data[:64]
            if len(self._start) >= LENGTH:
                header_size(self._start, self._name)
        self._hash.update(data)
        with disk_said(self._name):
            return self._file.write(data)

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()


class Uploads:
    """The files of all owners below one folder; none sees another's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def keep(self, owner: str, name: str = "") -> Iterator[UploadWriter]:
        """A writer; at its end the file is checked and kept, or nothing is.

        Raises:
            AdapterRefused: it is no safetensors file.
            AdapterUnavailable: the disk is full.
        """
        folder, shown = self._of(owner), _plain(name)
        with disk_said(shown):
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False)
        part = Path(file.name)
        try:
            with file:
                writer = UploadWriter(file, shown)
                yield writer
            with disk_said(shown):
                put_in_place(part, folder / f"{writer.sha256}.safetensors", shown)
                _write(folder / f"{writer.sha256}.json", {"name": shown, "size": writer.size})
            writer.reference = f"{PREFIX}{writer.sha256}"
        finally:
            part.unlink(missing_ok=True)

    def path(self, owner: str, sha256: str) -> Path:
        """The file of an owner.

        Raises:
            AdapterNotFound: this owner has no such file, whoever else has.
        """
        path = self._of(owner) / f"{sha256}.safetensors"
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not path.is_file():
            raise AdapterNotFound(reference=f"{PREFIX}{sha256[:12]}…")
        return path

    def name(self, owner: str, sha256: str) -> str:
        """The name that the file had where it came from."""
        try:
            kept = json.loads((self._of(owner) / f"{sha256}.json").read_bytes())
            return _plain(str(kept["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            return _plain("")

    def take_over(self, old: str, new: str) -> None:
        """Give an owner's files to another as well; jobs under way may still read the first.

        Raises:
            AdapterUnavailable: the disk is full.
        """
        with disk_said("the uploaded files"):
            for path in self._of(old).glob("*.*"):
                if path.suffix in (".safetensors", ".json"):
                    self._of(new).mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError):  # named by content: it is the same file
                        os.link(path, self._of(new) / path.name)

    def _of(self, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]


def _plain(name: str) -> str:
    """A file's own name as one short line."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(char if char.isprintable() else " " for char in last)
    return " ".join(shown.split())[:MAX_LENGTH] or "the uploaded file"


def _write(path: Path, value: dict[str, object]) -> None:
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(value), "utf-8")
    os.replace(part, path)
