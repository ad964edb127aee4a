"""The folder of each kind, and the card: what the Hub reads, installs and starts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import SpaceCard, SpaceHardware
from packaging.requirements import Requirement
from packaging.version import Version

from deploy.folder import readme, write_folder
from deploy.kinds import KINDS, MARK, ROOT, gradio_floor, requirements

# huggingface.co/docs/hub/spaces-config-reference
FIELDS = set(
    "title emoji colorFrom colorTo sdk python_version sdk_version suggested_hardware"
    " suggested_storage app_file app_build_command app_port base_path fullWidth header"
    " short_description models datasets tags thumbnail pinned hf_oauth hf_oauth_scopes"
    " hf_oauth_expiration_minutes hf_oauth_authorized_org disable_embedding"
    " startup_duration_timeout custom_headers preload_from_hub license".split()
)
COLOURS = set("red yellow green blue indigo purple pink gray".split())
LOCAL = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "psutil"}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spaces") / request.param
    write_folder(KINDS[request.param], version("gradio"), made)
    return Path(made)


@cache
def cards() -> dict[str, dict[str, Any]]:
    """The README's of this repository, and each kind's, as the Hub's client reads them."""
    made = {name: SpaceCard(readme(kind, version("gradio"))) for name, kind in KINDS.items()}
    read = {"repository": SpaceCard.load(ROOT / "README.md"), **made}
    return {name: yaml.safe_load(card.data.to_yaml()) for name, card in read.items()}


@pytest.mark.parametrize("name", ["repository", *KINDS])
def test_the_card_is_valid(name: str) -> None:
    card = cards()[name]
    assert set(card) <= FIELDS
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py")
    assert len(card["short_description"]) <= 60
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["suggested_hardware"] in list(SpaceHardware)
    assert re.fullmatch(r"\d+[smh]", card["startup_duration_timeout"])
    assert (card["python_version"], card["license"]) == ("3.12", "apache-2.0")
    assert card["hf_oauth"] is True and set(card["hf_oauth_scopes"]) == {
        "gated-repos",
        "read-repos",
    }
    assert MARK in card["tags"] and card["models"] == ["Tongyi-MAI/Z-Image-Turbo"]
    assert re.fullmatch(r"[^\w\s]+", card["emoji"])


@pytest.mark.parametrize("name", ["repository", *KINDS])
def test_its_gradio_satisfies_the_requirements(name: str) -> None:
    (wanted,) = (r for r in wanted_by("hosted") if r.name == "gradio")
    assert wanted.specifier.contains(cards()[name]["sdk_version"])


def test_the_repository_is_a_hosted_space() -> None:
    """On the oldest gradio it takes: the newest would make the file change by itself."""
    assert cards()["repository"] == cards()["hosted"] | {"sdk_version": gradio_floor()}
    assert Version(gradio_floor()) <= Version(version("gradio"))


# -- requirements ----------------------------------------------------------------


def wanted_by(kind: str) -> list[Requirement]:
    return [Requirement(line) for line in requirements(KINDS[kind]).splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_builder_can_read_the_requirements(kind: str) -> None:
    """No includes, no addresses, nothing pinned: gradio is the builder's to choose."""
    for requirement in wanted_by(kind):
        assert requirement.url is None and "==" not in str(requirement.specifier)
        assert not requirement.specifier.contains("0"), f"{requirement} has a floor"
    pydantic = next(r for r in wanted_by(kind) if r.name == "pydantic")
    assert pydantic.specifier.contains("2.12.5"), "the newest that gradio[mcp] takes"


def test_only_a_kind_with_a_gpu_brings_torch() -> None:
    names = {kind: {r.name for r in wanted_by(kind)} for kind in KINDS}
    assert names["gpu"] == names["zerogpu"] == names["hosted"] | LOCAL
    assert not names["hosted"] & LOCAL


def test_zerogpu_takes_the_torch_that_its_hardware_has() -> None:
    def torch(kind: str) -> Requirement:
        return next(r for r in wanted_by(kind) if r.name == "torch")

    assert torch("zerogpu").specifier.contains("2.11.0")
    assert not torch("zerogpu").specifier.contains("2.12.0")
    assert torch("gpu").specifier.contains("2.13.0")


# -- files -----------------------------------------------------------------------


def test_only_the_product_is_in_it(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "ui"} <= names
    assert not names & {"tests", "benchmarks", "scripts", "docs", "deploy", ".git", ".env", "data"}
    files = [path for path in folder.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files if path.name != "LICENSE"}
    assert kinds <= {".py", ".js", ".css", ".json", ".png", ".md", ".txt"}
    assert sum(path.stat().st_size for path in files) < 2 * 2**20


def test_it_says_what_it_is(folder: Path) -> None:
    card = SpaceCard.load(folder / "README.md")
    assert f"*{folder.name}*: {KINDS[folder.name].about}" in " ".join(card.text.split())
    assert "# Z-Image Turbo LoRA Playground" in card.text


def test_every_module_of_ours_is_in_it(folder: Path) -> None:
    ours = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/__init__.py")
    }
    missing = [
        f"{path.relative_to(folder)}: {name}"
        for path in folder.rglob("*.py")
        for name in _imported(path)
        if name.split(".")[0] in ours and not _is_there(folder, name)
    ]
    assert missing == []


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def _is_there(folder: Path, name: str) -> bool:
    path = folder.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
