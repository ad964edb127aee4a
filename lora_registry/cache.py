"""What was read before: a bounded memory, and JSON files that are whole and of this version."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

VERSION: Final = 1
V = TypeVar("V")


class Recent(Generic[V]):
    """The values used last, by key; safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> V | None:
        """The value, which counts as used now."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: V) -> V:
        """Keep a value, and give it back."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class JsonCache:
    """A folder of JSON objects by key. A disk that fails costs the copy, never an answer."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`; None where nothing usable is."""
        try:
            entry = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(entry, dict) or entry.get("version") != VERSION:
            return None
        value = entry.get("value")
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep `value`; written aside and renamed, the oldest entries giving way."""
        entry = {"version": VERSION, "value": value}
        with self._lock, suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(key)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(entry), "utf-8")
            os.replace(part, path)
            self._give_way()

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _give_way(self) -> None:
        """Down to nine tenths once there are too many, so that not every write counts and sorts."""
        entries = list(os.scandir(self._folder))
        if len(entries) > self._most:
            entries.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in entries[: len(entries) - self._most * 9 // 10]:
                os.unlink(entry.path)
