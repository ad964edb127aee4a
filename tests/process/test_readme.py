"""The README is executed: its commands, its example, its derived parts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.process.playground import ROOT, clean_environment, free_port, playground, wait_for

README = (ROOT / "README.md").read_text("utf-8")
BASH, PYTHON = (
    re.findall(rf"```{name}\n(.*?)```", README, re.DOTALL) for name in ("bash", "python")
)


def copy_of_the_repository(folder: Path) -> Path:
    """What a clone holds: the tracked files, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return folder


def test_the_first_command_sets_everything_up_and_serves(tmp_path: Path) -> None:
    """In a fresh folder, with an empty environment, without key, GPU or torch."""
    clone = copy_of_the_repository(tmp_path / "clone")
    port = free_port()
    own = clean_environment(tmp_path, {"GRADIO_SERVER_PORT": str(port)})
    own["HOME"] = os.environ.get("HOME", "/")  # pip's own settings
    pip = {name: value for name, value in os.environ.items() if "pip" in name.lower()}
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-ec", BASH[0]],
            cwd=clone,
            env=pip | own,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for("the page", lambda: _answers(url) or process.poll() is not None, timeout=240)
        assert process.poll() is None, log_path.read_text()
        assert not list((clone / ".venv").glob("lib/python*/site-packages/torch"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_ci_runs_the_second_command() -> None:
    assert BASH[1].strip() == "scripts/check"
    assert "exec scripts/check" in (ROOT / ".ci" / "run").read_text()


def test_the_example_of_the_api_runs(tmp_path: Path) -> None:
    with playground(tmp_path, {"PLAYGROUND_BACKEND": "demo"}) as page:
        example = PYTHON[0].replace("http://127.0.0.1:7860", page.url)
        run = subprocess.run(
            [sys.executable, "-c", example],
            env=clean_environment(tmp_path, {}),
            capture_output=True,
            text=True,
            timeout=90,
        )
    assert run.returncode == 0, run.stderr
    assert ".png" in run.stdout


def test_the_derived_tables_are_up_to_date() -> None:
    check = [sys.executable, "scripts/readme.py", "--check"]
    assert subprocess.run(check, cwd=ROOT).returncode == 0, "run: python scripts/readme.py"


def test_every_picture_and_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
