"""What one owner's token opened is nobody else's: not by name, commit, path or a call under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from generation.errors import AdapterError, AdapterGated, AdapterNotFound, SignInLapsed
from lora_registry import readers
from tests.faults.hub_desk import Desk
from tests.standins import hub_faults as faults
from tests.standins.hub import HubStandIn
from tests.standins.hub_ledger import token_hash
from tests.standins.hub_repos import TURBO, Repo, Visitor
from tests.standins.hub_weights import lora, weights

ADA, BOB = "user:ada", "user:bob"
TOKENS = {ADA: "hf_lentByAda", BOB: "hf_lentByBob"}
PRIVATE, GATED, PUBLIC = "ada/private", "maker/gated", "maker/public"
FILE = "style.safetensors"
HOUR = 3600.0


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    card = {"base_model": TURBO}
    with HubStandIn() as running:
        running.add_repo(Repo(PRIVATE, (weights(FILE, lora(2, layers=1)),), card, private=True))
        running.add_repo(Repo(GATED, (weights(FILE, lora(3, layers=1)),), card, gated="auto"))
        running.add_repo(Repo(PUBLIC, (weights(FILE, lora(4, layers=1)),), card))
        running.add_token(TOKENS[ADA], Visitor("ada", frozenset({GATED})))
        running.add_token(TOKENS[BOB], Visitor("bob"))
        yield running


@pytest.fixture
def desk(hub: HubStandIn, tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path / "adapters", hub)
    for owner in TOKENS:
        let_in(opened, owner)
    yield opened
    hub.release()
    opened.close()


def let_in(desk: Desk, owner: str, seconds: float = HOUR) -> None:
    desk.registry.let_in(owner, SecretStr(TOKENS[owner]), seconds)


@pytest.mark.parametrize("repo", [PRIVATE, GATED])
@pytest.mark.parametrize("stranger", [BOB, "visitor:x", "local"])
def test_a_copy_is_its_owners_alone(repo: str, stranger: str, desk: Desk) -> None:
    pinned = desk.inspect(repo, ADA).reference
    given = desk.hand_over(pinned, owner=ADA, as_file=True)
    assert given.local.is_file()
    assert desk.hand_over(pinned, owner=ADA).local == given.local, "the hosted endpoint's too"
    for path in (pinned, repo, f"{repo}/{FILE}"):
        for as_file in (True, False):
            with pytest.raises((AdapterNotFound, AdapterGated)):
                desk.hand_over(path, owner=stranger, as_file=as_file)
        with pytest.raises((AdapterNotFound, AdapterGated)):
            desk.inspect(path, stranger)
    with pytest.raises(AdapterError):
        desk.hand_over(str(given.local), owner=stranger, as_file=True)


def test_what_everybody_may_read_is_fetched_once_and_without_a_token(desk: Desk) -> None:
    given = {desk.hand_over(PUBLIC, owner=owner, as_file=True).local for owner in (ADA, BOB, "x")}
    assert len(given) == 1
    assert {r.token for r in desk.seen()} == {None}


def test_a_question_under_way_is_not_anothers(hub: HubStandIn, desk: Desk) -> None:
    """Both ask at once, and the Hub takes its time for each answer."""
    hub.inject(faults.slow("info", 0.3, times=None))
    found: list[str] = []
    ada = threading.Thread(target=lambda: found.append(desk.inspect(PRIVATE, ADA).name))
    ada.start()
    with pytest.raises(AdapterNotFound):
        desk.inspect(PRIVATE, BOB)
    ada.join(20)
    assert found == ["private"]


def test_nothing_closed_is_written_but_the_copy(desk: Desk) -> None:
    desk.inspect(PRIVATE, ADA)
    desk.hand_over(PRIVATE, owner=ADA, as_file=True)
    kept = [path for path in desk.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.parent.parent.name for path in kept] == ["owners"]
    assert not any(b"hf_lent" in path.read_bytes() for path in kept)


def test_a_lapsed_token_is_dropped_and_said(hub: HubStandIn, desk: Desk) -> None:
    pinned = desk.hand_over(PRIVATE, owner=ADA, as_file=True) and desk.inspect(PRIVATE, ADA)
    let_in(desk, ADA, seconds=0.0)
    asked = len(desk.seen())
    for path in (PRIVATE, pinned.reference):
        with pytest.raises(SignInLapsed, match="Sign in again"):
            desk.hand_over(path, owner=ADA, as_file=True)
    assert {r.token for r in desk.seen()[asked:]} == {None}
    assert desk.hand_over(PUBLIC, owner=ADA).url
    let_in(desk, ADA)
    assert desk.hand_over(pinned.reference, owner=ADA, as_file=True).local.is_file()


def test_a_token_taken_back_on_the_hub_is_said(hub: HubStandIn, desk: Desk) -> None:
    desk.registry.let_in(ADA, SecretStr("hf_takenBack"), HOUR)
    with pytest.raises(SignInLapsed):
        desk.inspect(PRIVATE, ADA)


def test_signed_out_is_like_never_signed_in(desk: Desk) -> None:
    pinned = desk.inspect(PRIVATE, ADA).reference
    desk.hand_over(pinned, owner=ADA, as_file=True)
    desk.registry.forget(ADA)
    for path in (PRIVATE, pinned):
        with pytest.raises(AdapterNotFound):
            desk.hand_over(path, owner=ADA, as_file=True)
    assert desk.inspect(PUBLIC, ADA).name == "public"


def test_their_own_copy_needs_no_hub(hub: HubStandIn, desk: Desk) -> None:
    pinned = desk.inspect(PRIVATE, ADA).reference
    first = desk.hand_over(pinned, owner=ADA, as_file=True).local
    hub.inject(faults.answer("info", 503, b"", times=None))
    assert desk.hand_over(pinned, owner=ADA, as_file=True).local == first
    with pytest.raises(AdapterError):
        desk.hand_over(pinned, owner=BOB, as_file=True)


def test_the_hub_saw_each_token_for_its_owner_only(desk: Desk) -> None:
    desk.inspect(PRIVATE, ADA)
    assert {r.token for r in desk.seen()} == {None, token_hash(TOKENS[ADA])}


def test_lapses_are_forgotten_in_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LAPSES_KEPT", 1)
    for owner in (ADA, BOB):
        let_in(desk, owner, seconds=0.0)
    with pytest.raises(AdapterNotFound):
        desk.inspect(PRIVATE, ADA)
    with pytest.raises(SignInLapsed):
        desk.inspect(PRIVATE, BOB)


def test_uploads_come_along(desk: Desk) -> None:
    file = weights(FILE, lora(2, layers=1))
    reference = desk.upload(file.read(0, file.length), "visitor:a", "mine.safetensors")
    before = desk.hand_over(reference, owner="visitor:a", as_file=True)
    for _ in range(2):
        desk.registry.take_over("visitor:a", ADA)
    after = desk.hand_over(reference, owner=ADA, as_file=True)
    assert (after.file, after.sha) == (before.file, before.sha)
    assert after.local.samefile(before.local), "a job under way may still read it"
    with pytest.raises(AdapterNotFound):
        desk.hand_over(reference, owner=BOB, as_file=True)
