"""What happens when the server starts, before anybody has opened the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import app
from settings import Settings
from tests.faults.puppet import Puppet


def test_the_backend_that_the_page_starts_with_gets_ready(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone: the others wait until somebody chooses them."""
    backends = {name: Puppet(billed=False, name=name) for name in ("hosted", "local", "demo")}
    seen: list[dict[str, int]] = []

    def launch(*_: Any, **__: Any) -> None:
        seen.append({name: puppet.started for name, puppet in backends.items()})

    monkeypatch.setattr(app, "available", lambda _settings: backends)
    monkeypatch.setattr(app, "launch", launch)
    app.serve(Settings(backend="local", data_dir=data_folder, _env_file=None))
    assert seen == [{"hosted": 0, "local": 1, "demo": 0}]
    assert {puppet.closed for puppet in backends.values()} == {1}
