"""All of a visitor's images as a zip: theirs alone, whole, and never whole in memory."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from zipfile import ZipFile

import pytest

from history.store import History
from tests.unit.test_history_store import ME, YOU, encoded, made
from ui import archive
from ui.archive import BLOCK, stored_images, zip_of

MIB = 2**20


def unpacked(history: History, owner: str) -> dict[str, bytes]:
    whole = b"".join(zip_of(stored_images(history, owner)))
    with ZipFile(io.BytesIO(whole)) as found:
        assert found.testzip() is None
        return {name: found.read(name) for name in found.namelist()}


def test_it_holds_all_that_is_mine_and_nothing_else(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_ROWS", 2)  # more than one page of them
    jobs = [made(history, encoded(), encoded("red", kind="JPEG")) for _ in range(5)]
    made(history, owner=YOU)
    history.delete(jobs[2].id, ME)
    kept = [job for job in jobs if job is not jobs[2]]
    files = [
        history.image_file(job.id, ME, image.index)
        for job in reversed(kept)
        for image in job.images
    ]
    expected = {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}
    assert len(expected) == 8
    found = unpacked(history, ME)
    assert found == expected and list(found) == list(expected), "newest first"


def test_an_empty_history_is_an_empty_zip(history: History) -> None:
    made(history, owner=YOU)
    assert unpacked(history, ME) == {}


def test_what_goes_away_meanwhile_is_left_out(history: History) -> None:
    first, second = made(history), made(history)
    files = stored_images(history, ME)
    (_, path) = next(files)
    assert second.id in path.name
    history.image_file(first.id, ME, 0).unlink()
    assert list(files) == []
    assert b"".join(zip_of([("gone.png", path.with_name("gone.png"))])) == b"".join(zip_of([]))


def test_it_is_never_whole_in_memory(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(64 * MIB)
    tracemalloc.start()
    try:
        sizes = [len(part) for part in zip_of([("1.png", large), ("2.png", large)])]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 128 * MIB and max(sizes) < 2 * BLOCK
    assert peak < 4 * MIB
