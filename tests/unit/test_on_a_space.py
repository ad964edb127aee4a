"""What is different on a Space: its names, its proxy, its disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

import settings
from settings import SPACE_STORAGE, Settings
from ui.launch import known_hosts
from ui.safety import middleware


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (None, {"localhost"}),
        ("", {"localhost"}),
        ("jane-x.hf.space", {"localhost", "jane-x.hf.space"}),
        ("jane-x.hf.space,x.example", {"localhost", "jane-x.hf.space", "x.example"}),
        ("jane-x.hf.space, x.example", {"localhost", "jane-x.hf.space", "x.example"}),
    ],
)
def test_it_answers_to_all_its_names(
    told: str | None, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_ROOT_PATH", "GRADIO_SERVER_NAME", "SPACE_HOST"):
        monkeypatch.delenv(name, raising=False)
    if told is not None:
        monkeypatch.setenv("SPACE_HOST", told)
    assert known_hosts() == names


@pytest.mark.parametrize(
    ("headers", "framed"),
    [
        ({}, False),
        ({"X-Forwarded-Proto": "http"}, False),
        ({"X-Forwarded-Proto": "https"}, True),
        ({"X-Forwarded-Proto": "https, http"}, True),
        ({"X-Forwarded-Proto": "http, https"}, False),
    ],
)
def test_a_visitor_keeps_the_cookie_in_the_frame_of_another_site(
    headers: dict[str, str], framed: bool
) -> None:
    """The Hub shows a Space in a frame, and speaks HTTP to it behind its proxy."""

    async def hello(_: Request) -> Response:
        return Response("hello")

    gate = middleware(["testserver"], public=True)
    with TestClient(Starlette(routes=[Route("/", hello)], middleware=gate)) as browser:
        cookie = browser.get("/", headers=headers).headers["set-cookie"]
    assert cookie.endswith("SameSite=None; Secure; Partitioned") is framed
    assert cookie.endswith("SameSite=Lax") is not framed


@pytest.mark.parametrize(
    ("on_space", "folder", "kept"),
    [
        (False, None, True),
        (True, None, False),
        (True, SPACE_STORAGE, True),
        (True, Path("/mnt/images"), True),
    ],
)
def test_whether_history_outlives_a_restart(
    on_space: bool, folder: Path | None, kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "ON_SPACE", on_space)
    monkeypatch.setattr(settings, "SPACE_STORAGE", tmp_path / "data")
    monkeypatch.setenv("PLAYGROUND_DATA_DIR", str(folder or ""))
    assert Settings(_env_file=None).keeps_history is kept


def test_mounted_storage_is_used_and_lasts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "ON_SPACE", True)
    monkeypatch.setattr(settings, "SPACE_STORAGE", tmp_path)
    monkeypatch.delenv("PLAYGROUND_DATA_DIR", raising=False)
    found = Settings(_env_file=None)
    assert found.data_dir == tmp_path / "z-image-playground" and found.keeps_history
