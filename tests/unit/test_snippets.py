"""The code that the page shows, executed: it sends what the page would send."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.parsing import parse_request
from generation.request import ENDPOINT, MAX_SEED, GenerationRequest
from generation.snippets import JS_EXACT, SNIPPETS

KEY = "id:secret"
PROMPTS = [
    "a fox",
    "it's a \"fox\", isn't it? 'yes'",
    "two\nlines\n\nand a tab\there",
    "$(touch /tmp/pwned) `id` ${HOME} $FAL_KEY !! && | ; # *",
    "back\\slash \\n \\u0041 \\' \\\" %s %(x)s {x}",
    "'; curl evil.example; echo '",
    "狐狸 🦊 שועל \u202e e\u0301",
    "line\u2028and\u2029paragraph",
    "</script><script>alert(1)</script>",
    "ends with a backslash \\",
    '"""triple""" and \'\'\'triple\'\'\'',
    "long words " * 60,
    "@/etc/passwd",
    "*/ // -- <!--",
]  # fmt: skip


def request(prompt: str, **values: Any) -> GenerationRequest:
    return parse_request({"prompt": prompt, **values}).request


def whole(prompt: str) -> GenerationRequest:
    """Nothing at its default."""
    return request(
        prompt,
        image_size={"width": 640, "height": 480},
        num_inference_steps=5,
        seed=str(JS_EXACT),
        sync_mode=True,
        num_images=2,
        enable_safety_checker=False,
        output_format="webp",
        acceleration="high",
        enable_prompt_expansion=True,
        loras=[{"path": "owner/name", "scale": 0.75}, {"path": "https://x.example/it's?a=1&b=$2"}],
    )


def test_every_snippet_has_its_test() -> None:
    assert set(SNIPPETS) == {"Python", "JavaScript", "cURL", "JSON"}


# -- Python --------------------------------------------------------------------


def run_python(code: str) -> list[tuple[str, dict[str, Any]]]:
    """What the code asks of fal_client, which isn't the real one."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def subscribe(endpoint: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append((endpoint, arguments))
        return {"images": [{"url": "https://x.example/1.png"}]}

    fake = ModuleType("fal_client")
    fake.subscribe = subscribe  # type: ignore[attr-defined]
    printed = io.StringIO()
    with patch.dict("sys.modules", fal_client=fake), contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), {})
    assert printed.getvalue() == "https://x.example/1.png\n"
    return asked


@pytest.mark.parametrize("prompt", PROMPTS)
def test_python(prompt: str) -> None:
    wanted = whole(prompt)
    assert run_python(SNIPPETS["Python"](wanted)) == [(ENDPOINT, wanted.payload())]


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_python_with_any_text(text: str) -> None:
    wanted = request(f"a {text}", seed=str(MAX_SEED))
    assert run_python(SNIPPETS["Python"](wanted)) == [(ENDPOINT, wanted.payload())]


# -- JSON ----------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_json(prompt: str) -> None:
    for wanted in (whole(prompt), request(prompt)):
        assert json.loads(SNIPPETS["JSON"](wanted)) == wanted.payload()


# -- cURL ----------------------------------------------------------------------


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder for PATH whose curl only writes its arguments down."""
    folder = tmp_path / "bin"
    folder.mkdir()
    bash = shutil.which("bash")
    (folder / "curl").write_text(f"#!{bash}\nprintf '%s\\0' \"$@\" > {tmp_path}/arguments\n")
    (folder / "curl").chmod(0o755)
    return folder


def run_curl(code: str, bin_folder: Path) -> list[str]:
    environment = {"PATH": str(bin_folder), "FAL_KEY": KEY, "LANG": "C.UTF-8", "HOME": "/nowhere"}
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", code], env=environment, capture_output=True, timeout=20, cwd=bin_folder
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return (bin_folder.parent / "arguments").read_bytes().decode().split("\0")[:-1]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_curl(prompt: str, bin_folder: Path) -> None:
    wanted = whole(prompt)
    *arguments, body = run_curl(SNIPPETS["cURL"](wanted), bin_folder)
    assert arguments == [
        "--request", "POST", f"https://queue.fal.run/{ENDPOINT}",
        "--header", f"Authorization: Key {KEY}", "--header", "Content-Type: application/json",
        "--data",
    ]  # fmt: skip
    assert body.startswith("{"), "what begins with @ is a file to curl"
    assert json.loads(body) == wanted.payload()
    assert os.listdir(bin_folder) == ["curl"]


# -- JavaScript ----------------------------------------------------------------

CLIENT = """
export const fal = {
  async subscribe(endpoint, { input }) {
    console.error(JSON.stringify([endpoint, input]));
    return { data: { images: [{ url: "https://x.example/1.png" }] } };
  },
};
"""


def literal(code: str) -> str:
    """The object between `const input =` and its semicolon."""
    return code.split("const input = ", 1)[1].rsplit(";\n\nconst result", 1)[0]


def run_node(code: str, folder: Path) -> Any:
    client = folder / "node_modules" / "@fal-ai" / "client"
    client.mkdir(parents=True)
    (client / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (client / "index.js").write_text(CLIENT)
    (folder / "snippet.mjs").write_text(code, "utf-8")
    done = subprocess.run(
        ["node", "snippet.mjs"], cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "https://x.example/1.png\n"), done.stderr
    return json.loads(done.stderr)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_javascript(prompt: str, tmp_path: Path) -> None:
    """Read as JSON, which is JavaScript too; and run, where there is something to run it."""
    wanted = whole(prompt)
    code = SNIPPETS["JavaScript"](wanted)
    assert json.loads(literal(code)) == wanted.payload()
    assert not {"\u2028", "\u2029"} & set(code)
    head, tail = code.split(literal(code))
    assert head == 'import { fal } from "@fal-ai/client";\n\nconst input = '
    assert tail == (
        f';\n\nconst result = await fal.subscribe("{ENDPOINT}", {{ input }});\n'
        "for (const image of result.data.images) console.log(image.url);\n"
    )
    if shutil.which("node"):
        assert run_node(code, tmp_path) == [ENDPOINT, wanted.payload()]


@pytest.mark.parametrize(("seed", "rounds"), [(JS_EXACT, False), (JS_EXACT + 1, True)])
def test_javascript_says_when_it_rounds_a_seed(seed: int, rounds: bool) -> None:
    code = SNIPPETS["JavaScript"](request("a fox", seed=seed))
    assert ("JavaScript rounds this seed" in code) is rounds
    assert json.loads(literal(code))["seed"] == seed
