"""How the code is arranged: imports point one way, and no field or backend is forgotten."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import pytest
from gradio.components import Component

from backends.base import Resources
from backends.hosted import HostedBackend
from backends.registry import BACKENDS, available
from generation.errors import InvalidRequest
from generation.parsing import bounds, parse_request
from generation.request import MAX_LORAS, MAX_PROMPT, GenerationRequest, ImageSizePreset
from history.store import History
from jobs import Runner
from lora_registry.registry import Registry
from settings import Settings
from ui.create import ability, build_recipe
from ui.page import Site, build_page
from ui.recipes import control_values, request_values
from ui.texts import catalogue, translations
from ui.visitor import Visitors

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "generation",
    "lora_format",
    "backends",
    "lora_registry",
    "history",
    "jobs",
    "ui",
    "deploy",
)
MODULES = ("app", "settings", "outbound", "zerogpu")

# app → ui → jobs → backends, lora_registry, history → generation; the three don't know each other.
MAY_IMPORT = {
    "generation": set(),
    "settings": {"generation"},  # the values that it reads into
    "outbound": {"generation"},
    "history": {"generation"},
    "backends": {"generation", "lora_format", "outbound", "settings", "zerogpu"},
    "lora_format": {"generation"},
    "lora_registry": {"generation", "lora_format", "outbound"},
    "jobs": {"backends", "lora_registry", "history", "generation"},
    "ui": {"jobs", "backends", "lora_registry", "history", "generation"},
    "app": {
        "ui",
        "jobs",
        "backends",
        "lora_registry",
        "history",
        "generation",
        "settings",
        "zerogpu",
    },
    "zerogpu": set(),
    "deploy": {"history", "generation", "settings"},
}
ONLY_IN = {
    "gradio": ("ui/", "app.py", "zerogpu.py"),
    "gradio_client": (),
    "fal_client": ("backends/hosted.py", "backends/fal_storage.py"),
    "huggingface_hub": ("lora_registry/", "backends/local/", "deploy/"),
    "spaces": ("zerogpu.py",),
    "torch": ("backends/local/",),
    "prometheus_client": ("jobs/metrics.py",),
    "diffusers": ("backends/local/",),
    "ray": ("backends/local/pool/serving.py", "backends/local/pool/routing.py"),
    "pytest": (),
    "tests": (),
}


def product_files() -> list[Path]:
    inside = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    return sorted([*inside, *(ROOT / f"{name}.py" for name in MODULES)])


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The full names of all modules that a file imports, wherever in it."""
    tree = ast.parse(path.read_text("utf-8"))
    return tuple(name for node in ast.walk(tree) for name in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they lead"
        yield str(node.module)


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", product_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    mine = part_of(path)
    others = {name.split(".")[0] for name in imports(path)} & {*PARTS, *MODULES} - {mine}
    assert others <= MAY_IMPORT[mine]


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_place_only(package: str) -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in product_files()
        if package in {name.split(".")[0] for name in imports(path)}
    ]
    assert [user for user in users if not user.startswith(ONLY_IN[package])] == []


def test_nothing_is_imported_by_its_name_as_text() -> None:
    """Which would hide it from the rules above."""
    for path in product_files():
        used = {name for name in imports(path) if name.split(".")[0] == "importlib"}
        assert used <= {"importlib.metadata"}, path
        assert "__import__" not in path.read_text("utf-8"), path


# -- every field has its place -------------------------------------------------


ABLE = HostedBackend(None).capabilities(Resources())


@pytest.fixture(scope="module")
def controls() -> dict[str, Component]:
    with gr.Blocks(analytics_enabled=False):
        return build_recipe(translations(), ABLE, lambda: gr.HTML("[]")).controls


def values(controls: dict[str, Component]) -> dict[str, Any]:
    return {name: component.value for name, component in controls.items()}


def test_the_layout_has_every_field(controls: dict[str, Component]) -> None:
    assert set(request_values(values(controls))) == set(GenerationRequest.model_fields)


def test_a_note_takes_the_place_of_a_description() -> None:
    noted = replace(ABLE, notes={"acceleration": "unvalidated"})
    shown = {
        name: ability(name, translations(), noted)["info"] for name in ("acceleration", "seed")
    }
    assert "note.acceleration.unvalidated" in shown["acceleration"]
    assert "field.seed.description" in shown["seed"]
    none = replace(noted, fields=frozenset())
    assert "unable" in ability("acceleration", translations(), none)["info"]


def test_untouched_the_page_asks_for_the_endpoints_defaults(controls: dict[str, Component]) -> None:
    asked = {**request_values(values(controls)), "prompt": "a fox"}
    assert parse_request(asked).request == GenerationRequest(prompt="a fox")


def test_restored_values_fit_the_controls(controls: dict[str, Component]) -> None:
    whole = parse_request(
        {
            "prompt": "a fox",
            "image_size": {"width": 600, "height": 400},
            "num_inference_steps": 3,
            "seed": str(2**64 - 1),
            "sync_mode": True,
            "num_images": 4,
            "enable_safety_checker": False,
            "output_format": "webp",
            "acceleration": "none",
            "enable_prompt_expansion": True,
            "loras": [{"path": f"a/b{n}", "scale": n} for n in range(MAX_LORAS)],
        }
    ).request
    filled = control_values(whole)
    assert set(filled) == set(controls)
    assert parse_request(request_values(filled)).request == whole


@pytest.mark.parametrize("name", GenerationRequest.model_fields)
def test_a_control_has_the_bounds_of_its_field(name: str, controls: dict[str, Component]) -> None:
    limits = bounds(GenerationRequest.model_fields[name])
    control = controls.get(name)
    if isinstance(control, gr.Slider):
        assert (control.minimum, control.maximum) == (limits["ge"], limits["le"])
    elif isinstance(control, gr.Radio) and "ge" in limits:
        offered = [value for _, value in control.choices]
        assert offered == list(range(limits["ge"], limits["le"] + 1))
    elif isinstance(control, gr.Radio):
        offered = [value for _, value in control.choices]
        kind = ImageSizePreset if name == "image_size" else None
        allowed = get_args(kind or GenerationRequest.model_fields[name].annotation)
        assert [value for value in offered if value != "custom"] == list(allowed)


def test_an_adapter_that_is_off_keeps_its_scale_and_is_not_asked_for(
    controls: dict[str, Component],
) -> None:
    rows = [{"path": "a/b", "scale": 0.5, "on": False}, {"path": "c/d", "scale": 2, "on": True}]
    asked = {**values(controls), "prompt": "a fox", "loras": json.dumps(rows)}
    assert request_values(asked)["loras"] == [{"path": "c/d", "scale": 2}]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"path": "a/b"}]', "null", None, "[[]]"])
def test_slots_that_make_no_sense_are_refused(text: Any, controls: dict[str, Component]) -> None:
    with pytest.raises(InvalidRequest, match="loras"):
        request_values({**values(controls), "prompt": "a fox", "loras": text})


# -- every backend has its words -----------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole page, built and not served."""
    with History.open(tmp_path_factory.mktemp("page") / "data") as history:
        runner = Runner(history, available(Settings(_env_file=None)))
        registry = Registry(tmp_path_factory.mktemp("adapters"))
        site = Site(runner, registry, Visitors("private"), "demo", server_key=False)
        page = build_page(site)
        built: dict[str, Any] = dict(page.get_config_file())
        return built


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_its_texts(name: str) -> None:
    for language in ("en", "zh"):
        assert {f"backend.{name}", f"backend.{name}.note"} <= catalogue(language).keys()


def test_a_backend_can_be_chosen(config: dict[str, Any]) -> None:
    (switch,) = [c for c in config["components"] if c["props"].get("elem_id") == "backend"]
    assert [value for _, value in switch["props"]["choices"]] == list(BACKENDS)


def test_a_backend_is_called_by_its_name() -> None:
    made = available(Settings(_env_file=None))
    assert {name: backend.name for name, backend in made.items()} == {n: n for n in BACKENDS}


def test_the_counter_knows_the_limit(config: dict[str, Any]) -> None:
    (counter,) = [c for c in config["components"] if c["props"].get("elem_id") == "counter"]
    assert f'data-limit="{MAX_PROMPT}"' in str(counter["props"])


def test_no_template_holds_more_than_its_value(config: dict[str, Any]) -> None:
    """A template is code; a value is data, braces and dollars included.

    The slots' value is read by their script, so their template is markup alone.
    """
    templates = {
        component["props"]["html_template"]
        for component in config["components"]
        if component["type"] == "html" and component["props"].get("elem_id") != "adapters"
    }
    assert templates == {"${value}"}


def test_the_slots_template_takes_nothing_in(config: dict[str, Any]) -> None:
    (slots,) = (c for c in config["components"] if c["props"].get("elem_id") == "adapters")
    assert not set("${}") & set(slots["props"]["html_template"])


def test_only_the_api_has_names(config: dict[str, Any]) -> None:
    shown = [d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"]
    named = {"generate", "estimate_cost", "search_loras", "inspect_lora", "history", "restore"}
    assert named <= set(shown)
    assert not [name for name in shown if not isinstance(name, str)]
