"""What a visitor sees of the history: their own jobs, found, paged, deleted, restored."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from generation.errors import DiskFull, NoImages, NotInHistory, StorageError
from generation.imagefile import check_image
from generation.request import GenerationRequest, LoraRef
from generation.result import GenerationResult, ImageFile, make_receipt
from history import store
from history.files import ImageFolder
from history.journal import Ids
from history.records import Job, State
from history.store import History

ME, YOU = "me", "you"


def encoded(color: str = "teal", size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


@pytest.fixture
def history(any_history: History) -> History:
    return any_history


def request(prompt: str = "a fox", *loras: str) -> GenerationRequest:
    rows = tuple(LoraRef(path=path) for path in loras)
    return GenerationRequest(prompt=prompt, loras=rows, seed=7, image_size="square")


def made(
    history: History, *images: bytes, owner: str = ME, flags: tuple[bool, ...] = (), url: str = ""
) -> Job:
    """A STORED job with these images."""
    checked = [check_image(data) for data in images or (encoded(),)]
    files = tuple(ImageFile(url=url or "https://v3.fal.media/1.png") for _ in checked)
    result = GenerationResult(images=files, seed=7, has_nsfw_concepts=flags)
    infos = [image.info for image in checked]
    job = history.create(owner, "hosted", request())
    history.advance(job.id, State.SUBMITTING)
    history.advance(job.id, State.COMPLETED, result=result)
    receipt = make_receipt(job.request, result, infos, backend="hosted", billed=True)
    return history.store(job.id, checked, receipt)


def cost(job: Job) -> float:
    assert job.receipt is not None
    return job.receipt.cost_usd


# -- one job -------------------------------------------------------------------


def test_a_stored_image_is_described_as_it_lies_on_the_disk(
    history: History, tmp_path: Path
) -> None:
    job = made(history, encoded(kind="PNG"), encoded(kind="JPEG"), flags=(False, True))
    for image in job.images:
        data = (tmp_path / "data" / image.file).read_bytes()
        assert sha256(data).hexdigest() == image.sha256
        assert len(data) == image.size_bytes
        assert history.image_file(job.id, ME, image.index).read_bytes() == data
    assert [(i.format, i.width, i.height) for i in job.images] == [
        ("PNG", 64, 48),
        ("JPEG", 64, 48),
    ]
    assert [image.flagged for image in job.images] == [False, True]
    month, mark = f"{job.created:%Y-%m}", history._claims.mark
    assert [i.file for i in job.images] == [
        f"images/{month}/{job.id}-0{mark}.png",
        f"images/{month}/{job.id}-1{mark}.jpg",
    ]


def test_a_row_is_plain_json_for_a_browser(history: History) -> None:
    job = made(history)
    row = json.loads(json.dumps(job.row()))
    assert set(row) == {
        *("id", "created", "status", "backend", "prompt", "request"),
        *("images", "receipt", "favourite", "error"),
    }
    assert (row["status"], row["error"], row["favourite"]) == ("STORED", None, False)
    assert row["request"]["seed"] == row["receipt"]["seed"] == "7"
    assert datetime.fromisoformat(row["created"]).utcoffset() == timedelta(0)
    assert row["images"][0]["sha256"] == job.images[0].sha256
    failed = history.create(ME, "hosted", request())
    row = history.advance(failed.id, State.FAILED, error=NoImages()).row()
    assert row["error"] == {
        "type": "NoImages",
        "message": NoImages().cause,
        "hint": NoImages().remedy,
    }


@pytest.mark.parametrize(
    ("size", "preview"),
    [((64, 48), (64, 48)), ((2000, 1000), (512, 256)), ((300, 1500), (102, 512))],
)
def test_previews_are_small_and_never_enlarged(
    history: History, size: tuple[int, int], preview: tuple[int, int]
) -> None:
    job = made(history, encoded(size=size))
    with Image.open(history.preview_file(job.id, ME, 0)) as image:
        assert (image.format, image.size) == ("WEBP", preview)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_has_a_preview(history: History, mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (40, 30)).save(out, "PNG")
    job = made(history, out.getvalue())
    assert Image.open(history.preview_file(job.id, ME, 0)).size == (40, 30)


def test_a_preview_is_made_once_when_it_is_first_asked_for(
    history: History, tmp_path: Path
) -> None:
    job = made(history)
    assert list((tmp_path / "data").rglob("previews/*/*")) == []
    first = history.preview_file(job.id, ME, 0)
    made_at = first.stat().st_mtime_ns
    assert history.preview_file(job.id, ME, 0) == first
    assert first.stat().st_mtime_ns == made_at


def test_on_a_full_disk_an_image_is_its_own_preview(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = made(history)
    monkeypatch.setattr("os.fsync", fail)
    assert history.preview_file(job.id, ME, 0) == history.image_file(job.id, ME, 0)


def test_an_image_is_never_lost_over_its_preview(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError("encoder error -2")

    monkeypatch.setattr(Image.Image, "thumbnail", fail)
    job = made(history)
    assert history.preview_file(job.id, ME, 0) == history.image_file(job.id, ME, 0)


def test_storing_twice_makes_one_set_of_files(history: History, tmp_path: Path) -> None:
    job = made(history)
    files = sorted((tmp_path / "data").rglob("*-0*.*"))
    assert job.receipt is not None
    again = history.store(job.id, [check_image(encoded("red"))], job.receipt)
    assert again == job
    assert sorted((tmp_path / "data").rglob("*-0*.*")) == files
    assert len(files) == 1


def test_images_inside_the_answer_leave_the_journal_once_they_are_files(history: History) -> None:
    job = made(history, url="data:image/png;base64," + "A" * 1000)
    assert job.result is not None
    assert [image.url for image in job.result.images] == [""]


# -- whose ---------------------------------------------------------------------


def test_owners_never_meet(history: History) -> None:
    mine, yours = made(history), made(history, owner=YOU)
    assert [job.id for job in history.search(ME)] == [mine.id]
    assert history.total_cost(ME, mine.created) == cost(mine)
    calls: list[Callable[[str], object]] = [
        lambda job_id: history.get(job_id, ME),
        lambda job_id: history.favourite(job_id, ME, True),
        lambda job_id: history.delete(job_id, ME),
        lambda job_id: history.restore(job_id, ME),
        lambda job_id: history.image_file(job_id, ME, 0),
        lambda job_id: history.preview_file(job_id, ME, 0),
    ]
    outside = ["", "../../etc/passwd", "%", "\udc00", "é" * 38, "0" * 38, mine.id.upper() + "x"]
    for call in calls:
        for job_id in [yours.id, *outside]:
            with pytest.raises(NotInHistory):
                call(job_id)
    assert history.get(yours.id, YOU) == yours
    # Another owner's id is no secret door as a cursor either: it is only a place in time.
    assert history.search(ME, before=yours.id) == [mine]


@pytest.mark.parametrize("index", [1, -1, 10**9])
def test_only_images_that_exist_have_files(history: History, index: int) -> None:
    job = made(history)
    for look in (history.image_file, history.preview_file):
        with pytest.raises(NotInHistory):
            look(job.id, ME, index)
    history.image_file(job.id, ME, 0).unlink()
    with pytest.raises(NotInHistory):
        history.image_file(job.id, ME, 0)


def test_ids_sort_by_time_and_survive_a_clock_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids(None)
    first = [ids.next() for _ in range(1000)]
    monkeypatch.setattr("time.time_ns", lambda: 0)
    later = [Ids(first[-1]).next(), ids.next()]
    assert first == sorted(set(first))
    assert all(job_id > first[-1] for job_id in later)
    assert all(re.fullmatch("[0-9a-f]{38}", job_id) for job_id in [*first, *later])
    assert len({job_id[14:] for job_id in first}) == 1000


# -- searching -----------------------------------------------------------------


def found(history: History, query: str) -> set[str]:
    return {job.request.prompt for job in history.search(ME, query)}


def test_search_finds_words_anywhere_in_any_script(history: History) -> None:
    prompts = ["A Red FOX in the snow", "狐狸在雪地里", "Füchse, große", "fox_100% wool", "plain"]
    for prompt in prompts:
        history.create(ME, "demo", request(prompt))
    history.create(ME, "demo", request("an owl", "Owner/Pixel-Art"))
    assert found(history, "fox") == {"A Red FOX in the snow", "fox_100% wool"}
    assert found(history, "snow red") == {"A Red FOX in the snow"}
    assert found(history, "雪地") == {"狐狸在雪地里"}
    assert found(history, "FÜCHSE GROSSE") == {"Füchse, große"}
    assert found(history, "ｆｏｘ wool") == {"fox_100% wool"}  # full width
    assert found(history, "pixel-art") == {"an owl"}
    assert found(history, "  ") == {*prompts, "an owl"}
    assert found(history, "\x00\udc00") == set()
    assert found(history, "nowhere") == set()


@pytest.mark.parametrize("query", ["%", "_", "/", "\\", "100%", "fo%", "fox_", "' OR 1=1 --"])
def test_wildcards_are_letters(history: History, query: str) -> None:
    history.create(ME, "demo", request(f"with {query} inside"))
    history.create(ME, "demo", request("without"))
    history.create(ME, "demo", request("foxes 1000"))
    assert found(history, query) == {f"with {query} inside"}


def test_a_query_of_any_length_is_answered(history: History) -> None:
    history.create(ME, "demo", request("x " * 1000))
    assert len(history.search(ME, "x " * 100_000)) == 1


def test_search_shows_what_failed_and_hides_what_was_deleted(history: History) -> None:
    failed, deleted = (history.create(ME, "demo", request()) for _ in range(2))
    history.advance(failed.id, State.FAILED, error=NoImages())
    history.delete(deleted.id, ME)
    assert [job.id for job in history.search(ME)] == [failed.id]


def test_favourites_are_a_list_of_their_own(history: History) -> None:
    first, _second = made(history), made(history)
    assert history.favourite(first.id, ME, True).favourite
    assert [job.id for job in history.search(ME, favourites=True)] == [first.id]
    assert not history.favourite(first.id, ME, False).favourite
    assert history.search(ME, favourites=True) == []


def test_pages_have_no_gap_and_no_repeat(history: History) -> None:
    ids = [history.create(ME, "demo", request(f"fox {n}")).id for n in range(23)]
    for number in range(5):
        history.create(YOU, "demo", request(f"fox {number}"))
    history.delete(ids[10], ME)
    seen: list[str] = []
    before = None
    while page := history.search(ME, "fox", limit=4, before=before):
        seen += [job.id for job in page]
        before = seen[-1]
        if len(seen) == 8:  # what comes or goes meanwhile moves no page
            history.create(ME, "demo", request("fox, new"))
            history.delete(seen[-1], ME)
    ids.remove(ids[10])
    assert seen == ids[::-1]
    with pytest.raises(NotInHistory):
        history.search(ME, before="yesterday")


def test_limits_are_held(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_ROWS", 3)
    for _ in range(5):
        history.create(ME, "demo", request())
    assert [len(history.search(ME, limit=limit)) for limit in (-1, 0, 2, 999)] == [1, 1, 2, 3]


# -- money, deletion -----------------------------------------------------------


def test_costs_add_up_since_a_moment(history: History) -> None:
    start = datetime.now(UTC)
    jobs = [made(history) for _ in range(3)]
    history.create(ME, "hosted", request())
    history.delete(jobs[0].id, ME)
    each = cost(jobs[0])
    assert each > 0
    assert history.total_cost(ME, start) == pytest.approx(3 * each)
    assert history.total_cost(ME, jobs[2].created) == pytest.approx(each)
    assert history.total_cost(YOU, start) == 0
    with pytest.raises(Exception, match="time zone"):
        history.total_cost(ME, datetime(2026, 1, 1))


def test_deleting_can_be_undone(history: History) -> None:
    job = made(history)
    history.delete(job.id, ME)
    history.delete(job.id, ME)  # a double click
    for look in (history.get, lambda job_id, owner: history.image_file(job_id, owner, 0)):
        with pytest.raises(NotInHistory):
            look(job.id, ME)
    assert history.restore(job.id, ME).images == job.images
    assert history.image_file(job.id, ME, 0).exists()


def test_purging_removes_rows_and_files_of_what_was_deleted_long_ago(
    history: History, tmp_path: Path
) -> None:
    kept, gone, recent = made(history), made(history), made(history)
    running = history.create(ME, "hosted", request())
    for job in (gone, running):
        history.delete(job.id, ME)
    (tmp_path / "data" / "images" / f"{gone.created:%Y-%m}" / f"{gone.id}-3.png.part").touch()
    moment = datetime.now(UTC)
    history.delete(recent.id, ME)
    assert history.purge(moment) == 1
    assert history.purge(moment) == 0
    with pytest.raises(NotInHistory):
        history.restore(gone.id, ME)
    assert list((tmp_path / "data").rglob(f"{gone.id}*")) == []
    for job in (recent, running):
        history.restore(job.id, ME)
    assert {job.id for job in history.search(ME)} == {kept.id, recent.id, running.id}
    assert history.image_file(recent.id, ME, 0).exists()


def test_a_full_disk_refuses_a_job_before_anything_is_sent(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=store.RESERVE - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    with pytest.raises(DiskFull):
        history.create(ME, "hosted", request())
    assert history.search(ME) == []


def test_many_threads_share_one_history(history: History) -> None:
    def work(number: int) -> list[Job]:
        jobs = [made(history, owner=f"owner {number}") for _ in range(5)]
        history.search(f"owner {number}", "fox")
        history.delete(jobs[0].id, f"owner {number}")
        return jobs

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(8)))
    assert len({job.id for jobs in done for job in jobs}) == 40
    for number, jobs in enumerate(done):
        assert [job.id for job in history.search(f"owner {number}")] == [
            job.id for job in reversed(jobs[1:])
        ]


def test_no_name_leads_out_of_the_data_folder(history: History, tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "data")
    (tmp_path / "data" / "way-out").symlink_to(tmp_path)
    for name in ("../secret", "/etc/passwd", "images/../../secret", "way-out/secret"):
        with pytest.raises(StorageError):
            folder.path(name)


def test_the_data_folder_is_for_its_user_only(tmp_path: Path) -> None:
    with History.open(tmp_path / "some" / "data"):
        assert os.stat(tmp_path / "some" / "data").st_mode & 0o777 == 0o700
