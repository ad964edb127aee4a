"""What an adapter is, how a backend gets it, and what visitors drop on the page."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from generation.errors import (
    AdapterError,
    AdapterNotFound,
    AdapterRefused,
    AdapterUnavailable,
    PlaygroundError,
)
from lora_registry import copies, hub_source, uploads
from lora_registry.verdicts import BACKENDS, Fit
from tests.faults.hub_desk import Desk, timed
from tests.standins import hub_faults as faults
from tests.standins import hub_special as known
from tests.standins.adapters import adapter, corpus, hostile, large
from tests.standins.hub import HubStandIn
from tests.standins.hub_repos import READER_TOKEN, TURBO, Repo, RepoFile, Visitor

CANARY = "hf_canaryThatMustNotBeSeen"
SMALL = adapter("diffusers")
MEGABYTE = 2**20


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        running.add_token(CANARY, Visitor("canary", frozenset("*")))
        yield running


@pytest.fixture
def desk(hub: HubStandIn, tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path / "adapters", hub)
    yield opened
    hub.release()
    opened.close()


@pytest.fixture
def holder(hub: HubStandIn, tmp_path: Path) -> Iterator[Desk]:
    """A playground whose token opens everything."""
    opened = Desk(tmp_path / "adapters", hub, CANARY)
    yield opened
    hub.release()
    opened.close()


def add(desk: Desk, repo: str = "maker/style", **options: Any) -> Repo:
    """A repository with one small file."""
    name = options.pop("name", "style.safetensors")
    files = (RepoFile(name, options.pop("data", SMALL.data()), options.pop("size", None)),)
    card = options.pop("card", {"base_model": TURBO})
    return desk.hub.add_repo(Repo(repo, files, card, **options))


def add_big(desk: Desk, **options: Any) -> tuple[Repo, bytes]:
    """One of 170 MB, of which nothing is written down but the header."""
    big = large()
    header = big.header()
    return add(desk, "maker/big", data=header, size=big.size(), **options), header


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -- what it is ----------------------------------------------------------------


def test_a_click_tells_everything(desk: Desk) -> None:
    told = desk.inspect(known.PIXEL_ART)
    repo = desk.hub.repo(known.PIXEL_ART)
    # The public Hub's address, which fal can read, whatever mirror is configured here.
    pinned = f"https://huggingface.co/{repo.id}/resolve/{repo.sha}/pixel_art_zit.safetensors"
    assert told.reference == pinned
    assert (told.repo, told.name, told.sha) == (repo.id, "Pixel-Art-Turbo", repo.sha)
    assert told.anatomy is not None and told.anatomy.rank == 32
    assert set(told.fit) == set(BACKENDS) and told.fit["hosted"].fit is Fit.FITS
    assert [(word.text, word.source) for word in told.trigger_words] == [("pixel art", "card")]
    (file,) = told.files
    assert (file.size, file.date) == (repo.all_files[-1].length, "2026-02-01T10:00:00.000Z")
    assert told.moved_to is None and told.problem is None and not told.private


@pytest.mark.parametrize(
    ("repo", "word", "source"),
    [
        (known.TRIGGER_IN_PROSE, "herbarium sheet", "prose"),
        (known.TRIGGER_IN_HEADER, "lichen macro", "header"),
    ],
)
def test_a_trigger_word_says_where_it_is_from(
    desk: Desk, repo: str, word: str, source: str
) -> None:
    words = {each.text: each.source for each in desk.inspect(repo).trigger_words}
    assert words[word] == source


@pytest.mark.parametrize("each", corpus(), ids=lambda each: each.name)
def test_every_kind_of_file_is_told_from_its_header(desk: Desk, each: Any) -> None:
    add(desk, data=each.data(), card={})
    try:
        told = desk.inspect("maker/style")
    except AdapterRefused:
        assert each.kind == "not an adapter"
        return
    assert told.anatomy is not None and told.anatomy.kind == each.kind
    assert {name: verdict.fit for name, verdict in told.fit.items()} == each.fit
    assert sum(request.sent_bytes for request in desk.seen("cdn", "resolve")) <= 110_000


@pytest.mark.parametrize("bad", hostile(), ids=lambda bad: bad.name)
def test_a_hostile_file_is_refused_and_not_kept(desk: Desk, bad: Any) -> None:
    data = bad.data()
    add(desk, data=data[: 3 * MEGABYTE], size=len(data))
    _, seconds = timed(lambda: pytest.raises(AdapterRefused, desk.inspect, "maker/style"))
    assert seconds < 4
    with pytest.raises(AdapterRefused):
        desk.upload(data[: 3 * MEGABYTE])
    assert [path for path in desk.folder.rglob("*.safetensors")] == []
    assert [path for path in desk.folder.rglob("*.part")] == []


def test_a_header_costs_two_percent_of_the_file_at_most_and_is_read_once(desk: Desk) -> None:
    repo, header = add_big(desk)
    assert desk.inspect("maker/big").anatomy is not None
    assert len(desk.seen("cdn")) == (1 if len(header) <= 100_000 else 2)
    sent = sum(request.sent_bytes for request in desk.seen("cdn"))
    assert sent <= 0.02 * repo.all_files[-1].length
    again = Desk(desk.folder, desk.hub)
    assert again.inspect("maker/big").anatomy is not None
    assert sum(request.sent_bytes for request in desk.seen("cdn")) == sent
    again.close()


def test_a_large_header_takes_a_second_read(desk: Desk) -> None:
    assert desk.inspect(known.LARGE_HEADER).anatomy is not None
    ranges = [request.range for request in desk.seen("cdn")]
    assert ranges[0] == "bytes=0-99999" and len(ranges) == 2
    assert str(ranges[1]).startswith("bytes=100000-")


def test_what_the_card_leaves_open_the_header_answers(desk: Desk) -> None:
    add(desk, data=adapter("flux").data())
    told = desk.inspect("maker/style")
    assert told.card is not None and told.card.base == "turbo"
    assert told.fit["hosted"].fit is Fit.OTHER_FAMILY


def test_dates_and_prose_that_fail_are_left_out(desk: Desk) -> None:
    desk.hub.inject(faults.unavailable("paths", times=None))
    desk.hub.inject(faults.unavailable("cache", times=None, path="README"))
    desk.hub.inject(faults.unavailable("resolve", times=None, path="README"))
    told = desk.inspect(known.TRIGGER_IN_PROSE)
    assert told.problem is None and told.anatomy is not None and told.trigger_words == ()
    assert [file.date for file in told.files] == [None]


def test_several_who_look_at_the_same_read_it_once(desk: Desk) -> None:
    desk.hub.inject(faults.slow("info", 0.2), faults.slow("cdn", 0.2))
    told = desk.together(lambda: desk.registry.inspect(known.PIXEL_ART), 8)
    assert all(each == told[0] for each in told)
    assert len(desk.seen("info")) == 1 and len(desk.seen("cdn")) == 1


# -- handing over --------------------------------------------------------------


def test_a_public_one_goes_as_its_pinned_address(desk: Desk) -> None:
    told = desk.inspect(known.PIXEL_ART)
    for path in (told.reference, known.PIXEL_ART, f"{known.PIXEL_ART}/pixel_art_zit.safetensors"):
        given = desk.hand_over(path)
        assert (given.path, given.url, given.local) == (path, told.reference, None)
        assert (given.file, given.sha) == ("pixel_art_zit.safetensors", told.sha)


def test_a_pin_stays_although_the_repository_moves_on(desk: Desk) -> None:
    add(desk)
    pinned = desk.inspect("maker/style").reference
    add(desk, data=adapter("kohya").data())
    given = desk.hand_over(pinned)
    assert given.url == pinned and given.sha in pinned
    assert desk.hub.repo("maker/style").sha != given.sha


def test_a_renamed_one_is_handed_over_by_its_old_name(desk: Desk) -> None:
    assert f"/{known.NEW_NAME}/resolve/" in desk.hand_over(known.OLD_NAME).url


@pytest.mark.parametrize("repo", [known.PRIVATE, known.GATED, known.GATED_BY_HAND])
def test_a_closed_one_goes_as_a_file_and_never_as_an_address(holder: Desk, repo: str) -> None:
    told = holder.inspect(repo)
    assert told.private
    given = holder.hand_over(told.reference)
    assert given.url is None and given.sha == told.sha and given.file == told.file
    expected = holder.hub.repo(repo).file(str(told.file))
    assert expected is not None
    assert hashlib.sha256(given.local.read_bytes()).hexdigest() == expected.sha256


def test_a_closed_one_that_is_here_needs_no_second_look(holder: Desk) -> None:
    told = holder.inspect(known.PRIVATE)
    first = holder.hand_over(told.reference)
    again = Desk(holder.folder, holder.hub, CANARY)
    before = len(holder.seen("resolve", "cdn"))
    for down in (faults.reset("resolve", times=None), faults.reset("*", times=None)):
        holder.hub.inject(down)
        assert again.hand_over(told.reference).local == first.local
    assert len(holder.seen("resolve", "cdn")) == before
    again.close()


def test_a_file_is_fetched_once_with_progress(desk: Desk) -> None:
    add(desk)
    data = SMALL.data()
    calls: list[tuple[int, int | None]] = []
    first = desk.hand_over("maker/style", as_file=True, progress=lambda *done: calls.append(done))
    assert first.local.read_bytes() == data and calls[-1] == (len(data), len(data))
    before = len(desk.seen("cdn"))
    assert desk.hand_over("maker/style", as_file=True).local == first.local
    assert len(desk.seen("cdn")) == before


def test_several_who_need_the_same_file_fetch_it_once(desk: Desk) -> None:
    repo, _ = add_big(desk)
    told = desk.inspect("maker/big")
    desk.hub.inject(faults.slow("cdn", 0.3))
    before = len(desk.seen("cdn"))
    given = desk.together(lambda: desk.registry.hand_over(told.reference, as_file=True), 4)
    assert len({each.local for each in given}) == 1
    assert given[0].local is not None and given[0].local.stat().st_size == repo.all_files[-1].length
    assert len(desk.seen("cdn")) == before + 1


def test_two_processes_on_one_folder_fetch_a_file_once(desk: Desk) -> None:
    add(desk)
    other = Desk(desk.folder, desk.hub)
    told = desk.inspect("maker/style")
    desk.hub.inject(faults.slow("cdn", 0.3))
    before = len(desk.seen("cdn"))
    with ThreadPoolExecutor(2) as pool:
        bring = [pool.submit(one.hand_over, told.reference, as_file=True) for one in (desk, other)]
        paths = {waiting.result().local for waiting in bring}
    other.close()
    (path,) = paths
    assert path.read_bytes() == SMALL.data() and len(desk.seen("cdn")) == before + 1


@pytest.mark.parametrize(
    "fault", [faults.reset_midway("cdn", 9000), faults.truncated_body("cdn", 9000)]
)
def test_a_broken_download_goes_on_where_it_ended(
    desk: Desk, fault: faults.HubFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PAUSE", 0.01)
    add(desk)
    told = desk.inspect("maker/style")
    desk.hub.inject(fault)
    given = desk.hand_over(told.reference, as_file=True)
    assert given.local.read_bytes() == SMALL.data()
    resumed = desk.seen("cdn")[-1].range
    assert resumed is not None and resumed.startswith("bytes=") and resumed != "bytes=0-"


def test_half_a_file_that_calls_itself_half_is_completed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PAUSE", 0.01)
    add(desk)
    told, data = desk.inspect("maker/style"), SMALL.data()
    half = (("Content-Range", f"bytes 0-8999/{len(data)}"),)
    desk.hub.inject(faults.answer("cdn", 206, data[:9000], half))
    assert desk.hand_over(told.reference, as_file=True).local.read_bytes() == data
    assert desk.seen("cdn")[-1].range == "bytes=9000-"


def test_a_download_that_never_arrives_says_so_and_is_finished_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PAUSE", 0.01)
    add(desk)
    told = desk.inspect("maker/style")
    desk.hub.inject(faults.reset_midway("cdn", 4000, times=None))
    with pytest.raises(AdapterUnavailable) as caught:
        desk.hand_over(told.reference, as_file=True)
    assert "nothing was sent" in caught.value.remedy.lower()
    assert list(desk.folder.glob("files/*.safetensors")) == []
    desk.hub.clear_faults()
    assert desk.hand_over(told.reference, as_file=True).local.read_bytes() == SMALL.data()


def test_a_full_disk_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    add(desk)
    told = desk.inspect("maker/style")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AdapterUnavailable, match="the disk is full"):
        desk.hand_over(told.reference, as_file=True)
    with pytest.raises(AdapterUnavailable, match="the disk is full"):
        desk.upload(SMALL.data())
    monkeypatch.undo()
    assert list(desk.folder.rglob("*.safetensors")) == []
    assert desk.hand_over(told.reference, as_file=True).local.exists()


def test_a_file_above_the_limit_is_refused_before_it_is_fetched(desk: Desk) -> None:
    big = large()
    add(desk, data=big.header(), size=3 * 2**30)
    desk.hub.inject(faults.answer("cdn", 206, big.header(), RANGED))  # a header that fits
    told = desk.inspect("maker/style")
    with pytest.raises(AdapterRefused, match="larger than 2 GiB"):
        desk.hand_over(told.reference, as_file=True)
    assert sum(request.sent_bytes for request in desk.seen("cdn")) < 30 * MEGABYTE
    assert list(desk.folder.glob("files/*.safetensors")) == []


RANGED = (("Content-Range", f"bytes 0-99999/{large().size()}"),)


def test_closing_ends_a_download(desk: Desk) -> None:
    add_big(desk)
    told = desk.inspect("maker/big")
    desk.hub.inject(faults.throttled("cdn", 4 * MEGABYTE, times=None))
    threading.Timer(0.7, desk.registry.close).start()
    began = time.monotonic()
    with pytest.raises(AdapterUnavailable, match="stopped"):
        desk.hand_over(told.reference, as_file=True)
    assert time.monotonic() - began < 5
    assert list(desk.folder.glob("files/*.safetensors")) == []


def test_a_slow_download_holds_up_nothing_else(desk: Desk) -> None:
    add_big(desk)
    told = desk.inspect("maker/big")
    desk.hub.inject(faults.throttled("cdn", MEGABYTE, times=None, path="big"))
    thread = threading.Thread(
        target=lambda: pytest.raises(AdapterError, desk.hand_over, told.reference, as_file=True)
    )
    thread.start()
    time.sleep(0.2)
    _, seconds = timed(lambda: desk.search(text="pixel"))
    assert seconds < 1
    desk.registry.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("as_file", [False, True])
def test_what_cant_work_is_refused_before_a_byte_of_it_is_fetched(
    desk: Desk, as_file: bool
) -> None:
    add(desk, data=adapter("flux").data())
    with pytest.raises(AdapterRefused):
        desk.hand_over("maker/style", as_file=as_file)
    assert [request.range for request in desk.seen("cdn")] == ["bytes=0-99999"]


# -- dropped on the page -------------------------------------------------------


def test_an_upload_is_kept_by_its_hash_and_found_again(desk: Desk) -> None:
    reference = desk.upload(SMALL.data(), name="C:\\files\\my style.safetensors")
    assert reference == f"upload:{hashlib.sha256(SMALL.data()).hexdigest()}"
    told = desk.inspect(reference)
    assert (told.reference, told.file, told.name) == (reference, "my style.safetensors", "my style")
    assert told.private and told.fit["local"].fit is Fit.FITS
    for as_file in (False, True):
        given = desk.hand_over(reference, as_file=as_file)
        assert given.url is None and given.local.read_bytes() == SMALL.data()
        assert given.sha == reference.removeprefix("upload:")
    assert desk.seen() == []


def test_the_same_file_twice_is_one(desk: Desk) -> None:
    assert desk.upload(SMALL.data()) == desk.upload(SMALL.data())
    assert len(list(desk.folder.rglob("*.safetensors"))) == 1


def test_visitors_dont_see_each_others_files(desk: Desk) -> None:
    mine = desk.upload(SMALL.data(), owner="anna")
    for owner in ("bert", "", "../anna", "Anna", "anna/"):
        with pytest.raises(AdapterNotFound):
            desk.inspect(mine, owner=owner)
        for as_file in (False, True):
            with pytest.raises(AdapterNotFound):
                desk.hand_over(mine, owner=owner, as_file=as_file)
    assert desk.inspect(mine, owner="anna").anatomy is not None
    assert not any("anna" in str(path.relative_to(desk.folder)) for path in desk.folder.rglob("*"))


@pytest.mark.parametrize("owner", ["../../x", "/etc", "a\x00b", "深", "x" * 5000])
def test_an_owners_name_is_no_path(desk: Desk, owner: str) -> None:
    desk.upload(SMALL.data(), owner=owner)
    (kept,) = desk.folder.rglob("*.safetensors")
    assert kept.parent.parent == desk.folder / "uploads" and kept.parent.name.isalnum()


def test_other_files_are_refused_at_their_first_bytes(desk: Desk) -> None:
    with pytest.raises(AdapterRefused), desk.registry.keep_upload("local", "x.ckpt") as writer:
        writer.write(b"PK\x03\x04" + bytes(100))
        raise AssertionError("it goes on writing")
    assert not any(path.is_file() for path in desk.folder.rglob("*"))


def test_an_upload_that_is_given_up_leaves_nothing(desk: Desk) -> None:
    with pytest.raises(KeyboardInterrupt), desk.registry.keep_upload("local") as writer:
        writer.write(SMALL.data()[:5000])
        raise KeyboardInterrupt
    with pytest.raises(AdapterRefused):
        desk.upload(SMALL.data()[:5000])
    with pytest.raises(AdapterRefused):
        desk.upload(b"")
    assert not any(path.is_file() for path in desk.folder.rglob("*"))


def test_an_upload_above_the_limit_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_FILE", 4000)
    with pytest.raises(AdapterRefused, match="larger than"):
        desk.upload(SMALL.data())
    assert not any(path.is_file() for path in desk.folder.rglob("*"))


def test_an_upload_of_another_family_is_told_and_not_sent(desk: Desk) -> None:
    reference = desk.upload(adapter("flux").data())
    assert desk.inspect(reference).fit["hosted"].fit is Fit.OTHER_FAMILY
    with pytest.raises(AdapterRefused):
        desk.hand_over(reference)


# -- the token -----------------------------------------------------------------


def everything(desk: Desk) -> list[str]:
    """Every operation there is, and all that a person could be shown of it."""
    said: list[str] = []
    calls: list[Callable[[], object]] = [
        lambda: desk.search(), lambda: desk.search(text="unreleased"),
        lambda: desk.search(base="base", max_bytes=10**9),
        lambda: desk.cards(known.PRIVATE, known.GATED, "no/where"),
        *(partial(desk.inspect, repo) for repo in REPOS),
        *(partial(desk.hand_over, repo) for repo in REPOS),
        *(partial(desk.hand_over, repo, as_file=True) for repo in REPOS),
        lambda: desk.upload(SMALL.data()), lambda: desk.upload(b"x" * 50),
    ]  # fmt: skip
    for call in calls:
        try:
            said.append(repr(call()))
        except PlaygroundError as exc:
            said += ["".join(traceback.format_exception(exc)), repr(exc), json.dumps(exc.record())]
    return said


REPOS = (
    known.PRIVATE, known.GATED, known.PIXEL_ART, known.OLD_NAME, known.SEVERAL_FILES,
    known.NO_SAFETENSORS, known.HTML_WEIGHTS, known.OTHER_FAMILY, "no/where", "no repo",
)  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [None, faults.unavailable("*", times=None), faults.reset("*", times=None),
     faults.html("*", 401, times=None), faults.limited("*", times=None),
     faults.reset_midway("cdn", 50, times=None)],
    ids=lambda fault: "sound" if fault is None else f"{fault.kind}-{fault.status}",
)  # fmt: skip
def test_the_token_is_nowhere(
    holder: Desk,
    fault: faults.HubFault | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies, "PAUSE", 0.01)
    caplog.set_level(logging.DEBUG)
    if fault is not None:
        holder.hub.inject(fault)
    said = everything(holder)
    assert len(said) > 20 and not [text for text in said if CANARY in text]
    assert CANARY not in repr(vars(holder.registry)) + repr(holder.registry._hub.__dict__)
    assert CANARY not in caplog.text
    assert CANARY.encode() not in all_bytes(holder.folder)
    assert holder.hub.ledger.mentioning(CANARY) == []
    assert holder.hub.ledger.with_token(CANARY) != []
    assert not [request for request in holder.seen("cdn") if request.authorized]


def test_the_token_doesnt_follow_a_redirect_to_another_host(holder: Desk) -> None:
    with HubStandIn() as foreign:
        away = f"{foreign.url}/evil"
        for stage in ("info", "resolve", "list"):
            holder.hub.inject(faults.redirected(stage, away, times=None))
        everything(holder)
        assert foreign.ledger.requests() != []
        assert not [request for request in foreign.ledger.requests() if request.authorized]


@pytest.mark.parametrize("token", ["hf_bad\nHost: x", "hf bad", "hf_bäd", ""])
def test_a_token_that_no_header_can_carry_is_left_out(
    hub: HubStandIn, tmp_path: Path, token: str
) -> None:
    desk = Desk(tmp_path / "adapters", hub, token)
    assert desk.search().problem is None
    assert not [request for request in desk.seen() if request.authorized]
    desk.close()


def test_a_rejected_token_is_named_as_the_cause(hub: HubStandIn, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "adapters", hub, "hf_expired")
    page = desk.search()
    assert page.starters and "HF_TOKEN" in str(page.problem)
    assert "hf_expired" not in str(page.problem)
    desk.close()


def test_a_token_of_the_environment_isnt_used_unasked(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER_TOKEN)
    desk = Desk(tmp_path / "adapters", hub)
    desk.search()
    assert not [request for request in desk.seen() if request.authorized]
    desk.close()


def test_a_private_header_isnt_kept_on_disk(holder: Desk) -> None:
    holder.inspect(known.PRIVATE)
    assert not list((holder.folder / "cache" / "headers").glob("*"))
    holder.inspect(known.PIXEL_ART)
    assert len(list((holder.folder / "cache" / "headers").glob("*"))) == 1


def test_what_was_read_is_read_again_after_ten_minutes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.inspect(known.PIXEL_ART)
    desk.hand_over(known.PIXEL_ART)
    assert len(desk.seen("info")) == 1
    monkeypatch.setattr(hub_source, "FRESH", 0.0)
    desk.hand_over(known.PIXEL_ART)
    assert len(desk.seen("info")) == 2 and len(desk.seen("cdn")) == 1
