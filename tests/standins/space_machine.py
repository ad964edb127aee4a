"""The product's folder as a Space runs it: a dry run's files, a Space's variables, two starts.

`scripts/check_space` has the same tests run in a new environment, by the variables of `installed`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from deploy.folder import write_folder
from deploy.kinds import KINDS, Kind
from tests.process.playground import Playground, playground

# What the Hub sets in a Gradio Space. No data folder is named, and none is mounted.
VARIABLES = {
    "SYSTEM": "spaces",
    "SPACE_ID": "jane/light-table",
    "SPACE_HOST": "jane-light-table.hf.space",
    "SPACE_AUTHOR_NAME": "jane",
    "SPACE_REPO_NAME": "light-table",
    "SPACE_TITLE": "Light table",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_SSR_MODE": "true",
    "PLAYGROUND_DATA_DIR": "",
}
STARTS = ("python app.py", "import app")


@dataclass(frozen=True)
class Installed:
    """A kind's folder and the Python that has its requirements."""

    kind: Kind
    folder: Path
    python: str


def installed(directory: Path) -> Installed:
    """The hosted kind in this environment, or what `scripts/check_space` has installed."""
    kind = KINDS[os.environ.get("CHECK_SPACE_KIND", "hosted")]
    if folder := os.environ.get("CHECK_SPACE_FOLDER"):
        return Installed(kind, Path(folder), os.environ["CHECK_SPACE_PYTHON"])
    write_folder(kind, version("gradio"), directory / "space")
    return Installed(kind, directory / "space", sys.executable)


@contextmanager
def started(
    space: Installed, how: str, directory: Path, *environments: Mapping[str, str]
) -> Iterator[Playground]:
    """The Space, served from a working directory that isn't its own."""
    app = str(space.folder / "app.py")
    program = (app,) if how == "python app.py" else ("-c", how)
    found = {"PYTHONPATH": str(space.folder)} if how == "import app" else {}
    own = (VARIABLES, space.kind.variables, found, *environments)
    away = directory / "elsewhere"
    away.mkdir(parents=True)
    with playground(directory, *own, program=program, cwd=away, python=space.python) as page:
        yield page
