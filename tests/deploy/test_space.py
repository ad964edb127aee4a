"""`python -m deploy.space` against a Hub on loopback: what it makes, what it says if it can't."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi

from deploy import space
from deploy.folder import write_folder
from deploy.kinds import KINDS, ROOT
from tests.standins.spaces import TOKEN, Space, SpacesStandIn

NAME = "jane/light-table"
SECRET = "canary-id:canary-secret"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpacesStandIn]:
    monkeypatch.setattr(space, "get_token", lambda: TOKEN)
    with SpacesStandIn() as stand_in:
        monkeypatch.setattr(space, "HfApi", lambda token: HfApi(stand_in.url, token))
        yield stand_in


def run(*arguments: str, answer: str = "") -> list[str]:
    """The command, with one answer to every question; the questions."""
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return answer

    space.main(arguments, ask)
    return questions


def refused(*arguments: str) -> str:
    """What it said instead of doing it."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments, answer=SECRET)
    return str(ended.value.code)


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_is_what_the_dry_run_shows(
    kind: str, hub: SpacesStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(NAME, "--kind", kind, "--dry-run", str(tmp_path))
    assert hub.seen == []
    run(NAME, "--kind", kind)
    made = hub.spaces[NAME]
    assert made.files.pop(".gitattributes") == b""
    assert made.files == files_of(tmp_path)
    assert (made.commits, made.secrets) == (1, {})
    needed = {"hosted": "cpu-basic", "gpu": "l40sx1", "zerogpu": "zero-a10g"}
    assert made.hardware == needed[kind]
    assert made.sleep == (1800 if kind == "gpu" else None)
    first = "auto" if kind == "hosted" else "local"
    assert made.variables == {"PLAYGROUND_BACKEND": first}
    assert f"{hub.url}/spaces/{NAME}" in capsys.readouterr().out


def test_what_was_asked_for_is_set(hub: SpacesStandIn) -> None:
    run(
        NAME, "--secret", "OWNER_WORD", "--variable", "PLAYGROUND_MODE=public", "--variable", "A=",
        "--bucket", "jane/images", "--private", "--hardware", "zero-a10g", answer=SECRET,
    )  # fmt: skip
    made = hub.spaces[NAME]
    assert made.secrets == {"FAL_KEY": SECRET, "OWNER_WORD": SECRET}
    assert made.variables.items() >= {"PLAYGROUND_MODE": "public", "A": ""}.items()
    assert made.volumes == [{"type": "bucket", "source": "jane/images", "mountPath": "/data"}]
    assert (made.private, made.hardware) == (True, "zero-a10g")


def test_its_first_start_has_its_settings(hub: SpacesStandIn) -> None:
    run(NAME, "--kind", "gpu", "--secret", "WORD", answer=SECRET)
    steps = [path.split(NAME)[-1] for path in hub.seen if path.startswith("POST /api/spaces")]
    assert steps == ["/variables", "/secrets", "/preupload/main", "/commit/main"]


def test_a_second_run_brings_it_up_to_date(hub: SpacesStandIn) -> None:
    run(NAME, answer=SECRET)
    made = hub.spaces[NAME]
    first = dict(made.files)
    made.files |= {"left_over.py": b"", "app.py": b"old"}
    questions = run(NAME, "--hardware", "zero-a10g")
    assert made.files == first and made.hardware == "zero-a10g"
    assert made.secrets == {"FAL_KEY": SECRET}, "Enter leaves it"
    assert [question.split()[0] for question in questions] == ["FAL_KEY"]
    run(NAME, "--kind", "gpu")
    assert made.hardware == "l40sx1" and b"torch" in made.files["requirements.txt"]


def test_hardware_that_is_there_is_not_asked_for_again(hub: SpacesStandIn) -> None:
    run(NAME, "--kind", "zerogpu")
    run(NAME, "--kind", "zerogpu")
    assert not [path for path in hub.seen if path.endswith("/hardware")]


def test_an_empty_space_is_filled(hub: SpacesStandIn) -> None:
    """The Hub's own first README has a card, without our tag."""
    hub.spaces[NAME] = Space(files={"README.md": b"---\ntitle: Light\nsdk: gradio\n---\n"})
    run(NAME)
    assert "app.py" in hub.spaces[NAME].files


def test_somebody_elses_work_is_left_alone(hub: SpacesStandIn) -> None:
    theirs = {"app.py": b"print()", "README.md": b"---\ntitle: Theirs\nsdk: gradio\n---\n"}
    hub.spaces[NAME] = Space(files=dict(theirs))
    said = refused(NAME)
    assert f"The Space '{NAME}' exists and is something else." in said and "another name" in said
    assert hub.spaces[NAME] == Space(files=theirs)


# -- errors: the cause, the next step, and never the secret ---------------------


@pytest.mark.parametrize(
    ("ending", "status", "words"),
    [
        ("/create", 401, "doesn't accept this token"),
        ("/create", 402, "--hardware zero-a10g"),
        ("/create", 403, "isn't allowed to create"),
        ("/create", 409, "is something else"),
        ("/secrets", 403, "isn't allowed to set a secret of"),
        ("/secrets", 400, "didn't set a secret of 'jane/light-table' (HTTP 400)"),
        ("/variables", 404, "(HTTP 404)"),
        ("/volumes", 404, "didn't mount the bucket"),
        ("/validate-yaml", 400, "didn't write the files"),
        ("/main", 403, "isn't allowed to write the files"),
    ],
)
def test_each_refusal_has_a_cause_and_a_next_step(
    ending: str,
    status: int,
    words: str,
    hub: SpacesStandIn,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.refusals[ending] = status
    said = refused(NAME, "--variable", "A=b", "--bucket", "jane/images")
    assert words in said and "Traceback" not in said
    printed = capfd.readouterr()
    assert SECRET not in said + printed.out + printed.err


def test_hardware_that_must_be_paid(hub: SpacesStandIn) -> None:
    run(NAME)
    hub.refusals["/hardware"] = 402
    assert "paid before it will change the hardware" in refused(NAME, "--kind", "gpu")


def test_an_owner_that_is_not_mine(hub: SpacesStandIn) -> None:
    assert "isn't allowed to create 'fal/light-table'" in refused("fal/light-table")


def test_a_token_that_is_wrong(hub: SpacesStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "get_token", lambda: "hf_revoked")
    assert "doesn't accept this token" in refused(NAME)


@pytest.mark.parametrize("ending", [EOFError, KeyboardInterrupt])
def test_a_question_that_nobody_answers(ending: type[BaseException], hub: SpacesStandIn) -> None:
    def ask(_: str) -> str:
        raise ending

    with pytest.raises(SystemExit, match="Stopped"):
        space.main([NAME], ask)
    assert hub.seen == []


def test_no_token(hub: SpacesStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "get_token", lambda: None)
    said = refused(NAME)
    assert "Nobody is signed in" in said and "hf auth login" in said
    assert hub.seen == []


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "get_token", lambda: TOKEN)
    monkeypatch.setattr(space, "HfApi", lambda token: HfApi("http://127.0.0.1:9", token))
    assert f"didn't look for '{NAME}' ({httpx2.ConnectError.__name__})" in refused(NAME)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((NAME, "--kind", "huge"), "choose from"),
        (("light-table",), "no OWNER/NAME"),
        ((NAME, "--hardware", "abacus"), "is none of cpu-basic"),
        ((NAME, "--variable", "A"), "no NAME=VALUE"),
        ((), "OWNER/NAME"),
    ],
)
def test_a_command_that_makes_no_sense(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert words in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert "has files in it already" in refused(NAME, "--dry-run", str(tmp_path))
    assert files_of(tmp_path) == {"mine": b"x"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(NAME, "--dry-run", str(tmp_path / "file"))
    assert "can't be written" in said and "another folder" in said


def test_the_number_of_files_is_told(tmp_path: Path) -> None:
    assert write_folder(KINDS["hosted"], "6.31.0", tmp_path) == len(files_of(tmp_path))


def test_the_readmes_command_is_one(tmp_path: Path) -> None:
    command = ".venv/bin/python -m deploy.space "
    (line,) = (row for row in (ROOT / "README.md").read_text().splitlines() if command in row)
    run(*shlex.split(line.removeprefix(command)), "--dry-run", str(tmp_path))
    assert (tmp_path / "app.py").is_file()
