"""Rows 60 to 69 and 78: the Hub fails in every way it can, and a person is told what and why."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from generation.errors import (
    AdapterGated,
    AdapterNotFound,
    AdapterRefused,
    HubLimited,
    HubUnreachable,
    NoWeights,
    ReferenceInvalid,
    SeveralFiles,
)
from generation.lora_file import pinned_address
from lora_registry.verdicts import Fit
from tests.faults.hub_desk import Desk, timed
from tests.standins import hub_faults as faults
from tests.standins import hub_special as known
from tests.standins.hub import HubStandIn
from tests.standins.hub_repos import READER_TOKEN, STRANGER_TOKEN, TURBO, Repo, RepoFile
from tests.standins.hub_special import breaking_repos
from tests.standins.hub_weights import lora, weights

NewDesk = Callable[..., Desk]


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as running:
        yield running


@pytest.fixture
def new_desk(hub: HubStandIn, tmp_path: Path) -> Iterator[NewDesk]:
    opened: list[Desk] = []

    def make(token: str | None = None, at: str | None = None) -> Desk:
        opened.append(Desk(tmp_path / "adapters", hub, token, at=at))
        return opened[-1]

    yield make
    hub.release()
    for desk in opened:
        desk.close()


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    return new_desk()


def age_listings(desk: Desk, seconds: float) -> None:
    """As if what lies on disk had been fetched earlier; for a desk that is opened next."""
    for path in (desk.folder / "cache" / "searches").glob("*.json"):
        entry = json.loads(path.read_text())
        entry["value"]["fetched"] -= seconds
        path.write_text(json.dumps(entry))


def stale(new_desk: NewDesk) -> Desk:
    """A playground that has searched an hour ago, and was restarted since."""
    first = new_desk()
    assert first.search().problem is None
    age_listings(first, 3600)
    return new_desk()


# -- 60: gated -----------------------------------------------------------------


@pytest.mark.parametrize("repo", [known.GATED, known.GATED_BY_HAND])
@pytest.mark.parametrize("token", [None, STRANGER_TOKEN])
def test_60_a_gated_adapter_links_to_where_access_is_asked(
    new_desk: NewDesk, repo: str, token: str | None
) -> None:
    desk = new_desk(token=token)
    for attempt in (desk.inspect, desk.hand_over):
        with pytest.raises(AdapterGated) as caught:
            attempt(repo)
        assert f"{desk.hub.url}/{repo}" in caught.value.remedy
        assert "gated" in caught.value.cause
    assert desk.seen("cdn") == []


@pytest.mark.parametrize("status", [401, 403])
def test_60_a_gated_file_is_told_as_such_however_it_is_refused(desk: Desk, status: int) -> None:
    desk.hub.inject(faults.answer("resolve", status, b"Forbidden", times=None))
    with pytest.raises(AdapterGated):
        desk.inspect(known.GATED)
    with pytest.raises(AdapterNotFound):
        desk.inspect(known.PIXEL_ART)


def test_60_with_access_it_is_read_and_brought_here(new_desk: NewDesk) -> None:
    desk = new_desk(token=READER_TOKEN)
    told = desk.inspect(known.GATED)
    assert told.private and told.anatomy is not None and told.problem is None
    given = desk.hand_over(told.reference)
    assert given.url is None and given.local.read_bytes()[:1] != b""
    assert READER_TOKEN not in told.reference


# -- 61: not there, or private -------------------------------------------------


@pytest.mark.parametrize("repo", ["nobody/nothing", known.PRIVATE])
@pytest.mark.parametrize("token", [None, STRANGER_TOKEN])
def test_61_missing_and_private_are_told_alike(
    new_desk: NewDesk, repo: str, token: str | None
) -> None:
    desk = new_desk(token=token)
    for attempt in (desk.inspect, desk.hand_over):
        with pytest.raises(AdapterNotFound) as caught:
            attempt(repo)
        assert "not found, or it is private" in caught.value.cause
        assert "HF_TOKEN" in caught.value.remedy


@pytest.mark.parametrize(
    "reference",
    [f"{known.PIXEL_ART}/other.safetensors", f"{known.PIXEL_ART}/tree/no-such-branch",
     f"{known.PIXEL_ART}/resolve/{'0' * 40}/pixel_art_zit.safetensors"],
)  # fmt: skip
def test_61_a_missing_file_or_revision_is_not_found(desk: Desk, reference: str) -> None:
    with pytest.raises(AdapterNotFound):
        desk.inspect(reference)
    with pytest.raises(AdapterNotFound):
        desk.hand_over(reference)


def test_61_a_private_one_is_in_no_search_although_the_servers_token_sees_it(
    new_desk: NewDesk,
) -> None:
    desk = new_desk(token=READER_TOKEN)
    page = desk.search(text="unreleased", limit=100)
    assert page.cards == () and page.problem is None
    assert READER_TOKEN not in json.dumps([r.target for r in desk.seen()])
    told = desk.inspect(known.PRIVATE)
    assert told.private and told.card is not None and told.card.private


# -- 62: limited ---------------------------------------------------------------


def test_62_a_limited_hub_gives_the_cached_list_and_says_so(new_desk: NewDesk) -> None:
    desk = stale(new_desk)
    desk.hub.inject(faults.limited("list", 42, times=None))
    page = desk.search()
    assert isinstance(page.problem, HubLimited) and page.problem.facts["retry_after"] == 42
    assert len(page.cards) == 24 and not page.starters and 3600 <= page.age < 3700


def test_62_it_is_not_asked_again_before_its_time(desk: Desk) -> None:
    desk.hub.inject(faults.limited("list", 30, times=None))
    for text in ("one", "two", "three"):
        page = desk.search(text=text)
        assert isinstance(page.problem, HubLimited) and page.starters
    assert len(desk.seen("list")) == 1
    with pytest.raises(HubLimited):
        desk.hand_over(known.PIXEL_ART, as_file=True)
    assert desk.inspect(known.PIXEL_ART).problem is not None
    assert desk.seen("info") == []


def test_62_after_its_time_it_is(desk: Desk) -> None:
    desk.hub.inject(faults.limited("list", 1))
    assert isinstance(desk.search().problem, HubLimited)
    time.sleep(1.1)
    assert desk.search().problem is None


@pytest.mark.parametrize(
    ("sent", "wait"), [("7", 7), ("0", 1), ("999999", 600), ("soon", 60), ("-5", 60)]
)
def test_62_the_wait_is_read_and_capped(desk: Desk, sent: str, wait: int) -> None:
    headers = (("Retry-After", sent), ("Content-Type", "application/json"))
    desk.hub.inject(faults.answer("list", 429, b"{}", headers))
    problem = desk.search().problem
    assert isinstance(problem, HubLimited) and problem.facts["retry_after"] == wait


def test_62_limited_files_leave_the_search_alone(desk: Desk) -> None:
    desk.hub.inject(faults.limited("resolve", 30, times=None))
    told = desk.inspect(known.PIXEL_ART)
    assert isinstance(told.problem, HubLimited) and told.anatomy is None
    assert told.fit["hosted"].fit is Fit.UNKNOWN
    assert desk.search().problem is None
    assert desk.hand_over(known.PIXEL_ART).url == told.reference


# -- 63: renamed ---------------------------------------------------------------


def test_63_a_renamed_one_is_followed_and_its_new_name_shown(desk: Desk) -> None:
    told = desk.inspect(known.OLD_NAME)
    assert (told.moved_to, told.repo) == (known.NEW_NAME, known.NEW_NAME)
    assert f"/{known.NEW_NAME}/resolve/{told.sha}/" in told.reference
    assert told.anatomy is not None
    assert desk.hand_over(known.OLD_NAME).url == told.reference
    assert desk.inspect(known.NEW_NAME).moved_to is None


# -- 64: nothing to use --------------------------------------------------------


@pytest.mark.parametrize("repo", [known.NO_SAFETENSORS, known.GGUF])
def test_64_without_safetensors_it_is_refused(desk: Desk, repo: str) -> None:
    for attempt in (desk.inspect, desk.hand_over):
        with pytest.raises(NoWeights) as caught:
            attempt(repo)
        assert repo in caught.value.cause and "may run code" in caught.value.remedy
    assert desk.seen("resolve") == []


def test_64_a_pickle_isnt_even_looked_at(desk: Desk) -> None:
    with pytest.raises(ReferenceInvalid, match="may run code"):
        desk.inspect(f"{desk.hub.url}/{known.NO_SAFETENSORS}/blob/main/style.ckpt")
    assert desk.seen() == []


# -- 65: several ---------------------------------------------------------------


def test_65_of_several_files_the_person_chooses(desk: Desk) -> None:
    told = desk.inspect(known.SEVERAL_FILES)
    assert {file.name for file in told.files} == {
        "film_grain.safetensors",
        "film_grain_000001250.safetensors",
        "film_grain_000002750.safetensors",
    }
    assert all(
        file.size and file.date and file.date.startswith("2026-03-02") for file in told.files
    )
    assert told.file == "film_grain.safetensors"  # the last one saved; the steps are on the way
    with pytest.raises(SeveralFiles) as caught:
        desk.hand_over(known.SEVERAL_FILES)
    assert "film_grain_000001250.safetensors" in caught.value.cause
    second = desk.inspect(f"{known.SEVERAL_FILES}/film_grain_000001250.safetensors")
    assert second.file == "film_grain_000001250.safetensors" and len(second.files) == 3
    assert desk.hand_over(second.reference).url == second.reference


def test_65_the_standard_name_needs_no_choice(desk: Desk) -> None:
    standard = "pytorch_lora_weights.safetensors"
    names = ("z_last.safetensors", standard)
    files = tuple(weights(name, lora(4)) for name in names)
    desk.hub.add_repo(Repo("maker/two", files, {"base_model": TURBO}))
    assert desk.inspect("maker/two").file == standard
    assert desk.hand_over("maker/two").url.endswith(f"/{standard}")


# -- 66: another base model ----------------------------------------------------


def test_66_one_for_the_base_model_is_warned_of_and_not_held_up(desk: Desk) -> None:
    told = desk.inspect(known.FOR_BASE[0])
    assert told.fit["hosted"].fit is Fit.BASE_MODEL and "Turbo" in told.fit["hosted"].reason
    assert told.card is not None and told.card.base == "base"
    assert desk.hand_over(known.FOR_BASE[0]).url == told.reference


@pytest.mark.parametrize("repo", [known.OTHER_FAMILY, known.CONTROL_NET])
def test_66_another_family_or_no_adapter_is_stopped_before_it_costs(desk: Desk, repo: str) -> None:
    told = desk.inspect(repo)
    assert told.fit["hosted"].fit in (Fit.OTHER_FAMILY, Fit.NOT_AN_ADAPTER)
    for as_file in (False, True):
        with pytest.raises(AdapterRefused) as caught:
            desk.hand_over(told.reference, as_file=as_file)
        assert "nothing was sent" in caught.value.remedy


# -- 67: not what it says ------------------------------------------------------


@pytest.mark.parametrize("repo", [known.HTML_WEIGHTS, known.CUT_WEIGHTS])
def test_67_a_file_that_is_none_is_refused(desk: Desk, repo: str) -> None:
    for attempt in (desk.inspect, desk.hand_over):
        with pytest.raises(AdapterRefused):
            attempt(repo)
    with pytest.raises(AdapterRefused):
        desk.hand_over(repo, as_file=True)
    assert list(desk.folder.glob("files/*")) == []


@pytest.mark.parametrize("stage", ["resolve", "cdn"])
def test_67_a_login_page_in_place_of_weights_is_refused(desk: Desk, stage: faults.Stage) -> None:
    desk.hub.inject(faults.html(stage, times=None))
    with pytest.raises(AdapterRefused):
        desk.inspect(known.PIXEL_ART)


def test_67_a_hub_that_ignores_ranges_isnt_downloaded(desk: Desk) -> None:
    desk.hub.inject(faults.ignores_range("cdn", times=None))
    told = desk.inspect(known.LARGE_HEADER)
    assert told.anatomy is not None
    assert told.files[0].size is not None and told.files[0].size > 2_000_000
    assert sum(request.sent_bytes for request in desk.seen("cdn")) < told.files[0].size * 2


def test_67_other_bytes_than_the_hub_lists_are_not_kept(desk: Desk) -> None:
    body = weights("a.safetensors", lora(4))
    desk.hub.add_repo(Repo("maker/changed", (body,), {"base_model": TURBO}))
    told = desk.inspect("maker/changed")
    whole = body.read(0, body.length)
    for other in (whole[:-1] + b"x", whole + b"x"):
        desk.hub.inject(faults.answer("cdn", 200, other))
        with pytest.raises(AdapterRefused, match="not those that the Hub lists"):
            desk.hand_over(told.reference, as_file=True)
        kept = [file for file in desk.folder.glob("files/*") if file.suffix != ".lock"]
        assert kept == []


# -- 68: malformed cards -------------------------------------------------------


@pytest.mark.parametrize("repo", known.MALFORMED)
def test_68_a_malformed_card_is_shown_plainly(desk: Desk, repo: str) -> None:
    found = {card.id: card for card in desk.search(text=repo.partition("/")[2]).cards}
    assert repo in found and found[repo].files
    told = desk.inspect(repo)
    assert told.anatomy is not None and told.name == repo.partition("/")[2]


def test_68_one_bad_card_doesnt_end_the_list(desk: Desk) -> None:
    before = len(desk.search(limit=200, include_mature=True).cards)
    for repo in breaking_repos():
        desk.hub.add_repo(repo)
    page = desk.search(text="breaks-the-client")
    assert len(page.cards) == 2 and before > 24


def test_68_what_a_card_says_stays_text(desk: Desk) -> None:
    told = desk.inspect(known.HOSTILE_TEXT)
    assert told.card is not None and told.card.picture is None
    assert [word.text for word in told.trigger_words] == ["<script>alert(1)</script>"]


@pytest.mark.parametrize("body", [b'{"a": 1}', b"[null, 3, []]", b'[{"id": 7}]', b'"text"', b"[]"])
def test_68_a_listing_of_another_shape_is_no_error(desk: Desk, body: bytes) -> None:
    desk.hub.inject(faults.answer("list", 200, body, (("Content-Type", "application/json"),)))
    page = desk.search()
    assert page.starters or page.cards == ()


# -- 69: the Hub is down -------------------------------------------------------

DOWN = [
    faults.unavailable("*", 500, times=None),
    faults.unavailable("*", 503, times=None),
    faults.html("*", 502, times=None),
    faults.html("*", 200, times=None),
    faults.reset("*", times=None),
    faults.truncated_json("*", times=None),
    faults.truncated_body("*", 10, times=None),
]


@pytest.mark.parametrize("fault", DOWN, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_69_pasted_references_still_work(desk: Desk, fault: faults.HubFault) -> None:
    style = weights("style.safetensors", lora(4))
    sha = desk.hub.add_repo(Repo("maker/style", (style,), {"base_model": TURBO})).sha
    desk.hub.inject(fault)
    pinned = f"{desk.hub.url}/maker/style/resolve/{sha}/style.safetensors"
    told = desk.inspect(pinned)
    assert isinstance(told.problem, HubUnreachable)
    public = pinned_address("maker/style", sha, "style.safetensors")
    assert (told.reference, told.repo, told.file, told.sha) == (
        public,
        "maker/style",
        "style.safetensors",
        sha,
    )
    assert {verdict.fit for verdict in told.fit.values()} == {Fit.UNKNOWN}
    assert desk.hand_over(pinned).url == desk.hand_over(public).url == public
    assert desk.hand_over("maker/style").url == "maker/style"
    assert desk.inspect("maker/style").reference == "maker/style"


@pytest.mark.parametrize("fault", DOWN, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_69_the_list_is_the_last_known_one_and_says_why(
    new_desk: NewDesk, fault: faults.HubFault
) -> None:
    desk = stale(new_desk)
    desk.hub.inject(fault)
    page = desk.search()
    assert len(page.cards) == 24 and page.age >= 3600
    assert isinstance(page.problem, HubUnreachable) and "can't be reached" in page.problem.cause


def test_69_without_a_copy_there_are_starters(desk: Desk) -> None:
    desk.hub.inject(faults.reset("*", times=None))
    page = desk.search()
    assert page.starters and len(page.cards) >= 5 and not page.more
    assert all(card.id and card.picture is None for card in page.cards)
    assert isinstance(page.problem, HubUnreachable)


def test_69_nobody_listens_at_its_address(new_desk: NewDesk) -> None:
    desk = new_desk(at="http://127.0.0.1:9")
    assert desk.search().starters
    assert isinstance(desk.inspect("maker/style").problem, HubUnreachable)
    assert desk.hand_over("maker/style").url == "maker/style"


def test_69_a_hub_that_hangs_holds_nobody_up(new_desk: NewDesk) -> None:
    desk = stale(new_desk)
    desk.hub.inject(faults.hang("*", times=None))
    page, seconds = timed(desk.search)
    assert len(page.cards) == 24 and seconds < 1
    cold, seconds = timed(lambda: desk.search(text="something new"))
    assert cold.starters and isinstance(cold.problem, HubUnreachable) and seconds < 4
    again, seconds = timed(desk.search)  # by now it is late, and that is said
    assert isinstance(again.problem, HubUnreachable) and seconds < 1
    given, seconds = timed(lambda: desk.hand_over("maker/style"))
    assert given.url == "maker/style" and seconds < 4
    desk.hub.clear_faults()
    desk.hub.release()


def test_69_somebody_elses_trouble_with_the_shared_session_is_no_crash(desk: Desk) -> None:
    """`huggingface_hub` closes its one session when anybody's connection fails."""
    desk.hub.inject(faults.slow("list", 0.4))
    threading.Timer(0.1, close_session).start()
    page = desk.search()
    assert page.starters or len(page.cards) == 24
    assert desk.search().problem is None


def test_69_a_slow_answer_is_there_for_the_next_one(desk: Desk) -> None:
    desk.hub.inject(faults.slow("list", 3.4))
    first, seconds = timed(desk.search)
    assert first.starters and "3 s" in str(first.problem) and seconds < 3.4
    time.sleep(1)
    second = desk.search()
    assert second.problem is None and len(second.cards) == 24
    assert len(desk.seen("list")) == 1


def test_69_a_copy_that_is_here_needs_no_hub(new_desk: NewDesk) -> None:
    first = new_desk()
    told = first.inspect(known.PIXEL_ART)
    kept = first.hand_over(told.reference, as_file=True)
    desk = new_desk()
    desk.hub.inject(faults.reset("*", times=None))
    again = desk.hand_over(told.reference, as_file=True)
    assert (again.local, again.sha, again.file) == (kept.local, told.sha, told.file)


def test_69_it_comes_back(new_desk: NewDesk) -> None:
    desk = stale(new_desk)
    desk.hub.inject(faults.unavailable("list", 503))
    assert desk.search().problem is not None
    page = desk.search()
    assert page.problem is None and page.age == 0


# -- 78: what must not be followed ---------------------------------------------


@pytest.mark.parametrize(
    "reference",
    ["../../etc/passwd", "../x/y", "file:///etc/passwd", "javascript:alert(1)",
     "owner/name/../../../x.safetensors", "http://169.254.169.254/x.safetensors",
     "data:application/octet-stream;base64,AAAA", "upload:../../x",
     "https://user:word@example.com/x.safetensors", "C:\\Users\\x.safetensors"],
)  # fmt: skip
def test_78_dangerous_references_are_refused_where_they_stand(desk: Desk, reference: str) -> None:
    for attempt in (desk.inspect, desk.hand_over):
        with pytest.raises(ReferenceInvalid) as caught:
            attempt(reference)
        assert "names no adapter" in caught.value.cause
    assert desk.seen() == [] and not os.listdir(desk.folder.parent)


def test_78_a_name_in_a_repository_cant_leave_the_folder(desk: Desk) -> None:
    evil = RepoFile("../../evil.safetensors", weights("x.safetensors", lora(4)).body)
    desk.hub.add_repo(Repo("maker/evil", (evil,), {"base_model": TURBO}))
    with pytest.raises(NoWeights):
        desk.hand_over("maker/evil", as_file=True)
