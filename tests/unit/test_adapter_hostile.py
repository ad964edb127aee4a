"""Hostile adapter files: refused in 2 s and 512 MB, with a reason that a person understands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from generation.errors import AdapterRefused
from lora_format.anatomy import examine
from lora_format.header import MAX_HEADER, MAX_TENSORS, Header, TensorInfo, parse_header
from lora_format.stock import stock_result
from tests.standins.adapters import Hostile, hostile
from tests.standins.adapters.tensors import framed

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 512 * 2**20
SECONDS = 2.0

# Reads each file as the product does: at most the largest header and its length.
READ_ALL = """
import json, resource, sys, time
from pathlib import Path
from generation.errors import AdapterRefused
from lora_format.anatomy import examine
from lora_format.header import MAX_HEADER, parse_header
from lora_registry.verdicts import verdicts
limit, *files = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
for file in map(Path, files):
    began = time.perf_counter()
    try:
        with file.open("rb") as stream:
            start = stream.read(MAX_HEADER + 8)
        header = parse_header(start, name=file.name, file_bytes=file.stat().st_size)
        said = verdicts(examine(header))["hosted"].fit.value
    except AdapterRefused as refused:
        said = refused.facts["reason"]
    print(json.dumps({"file": file.name, "seconds": time.perf_counter() - began, "said": said}))
# Not getrusage: its figure is inherited from the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"file": "peak", "kilobytes": int(peak.split()[1])}))
"""


def read_apart(files: list[Path], memory: int = MEMORY) -> dict[str, dict[str, Any]]:
    """What a process with so much memory says of each file, and how long it took."""
    command = [sys.executable, "-c", READ_ALL, str(memory), *map(str, files)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return {line.pop("file"): line for line in lines}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    files = [folder / one.name.replace("^", "") for one in hostile()]
    for file, one in zip(files, hostile(), strict=True):
        file.write_bytes(one.data())
    return read_apart(files)


@pytest.mark.parametrize("one", hostile(), ids=lambda one: one.name)
def test_it_is_refused_in_time(one: Hostile, readings: dict[str, dict[str, Any]]) -> None:
    reading = readings[one.name.replace("^", "")]
    assert one.says in reading["said"]
    assert reading["seconds"] <= SECONDS


def test_all_of_them_together_stay_within_the_memory(
    readings: dict[str, dict[str, Any]],
) -> None:
    assert readings["peak"]["kilobytes"] * 1024 <= MEMORY


def test_the_limit_on_memory_is_felt(tmp_path: Path) -> None:
    """With less than the reading takes the process dies: so above it was really limited."""
    file = tmp_path / "numbers"
    file.write_bytes(next(one for one in hostile() if one.name == "many-numbers").data())
    with pytest.raises(subprocess.CalledProcessError):
        read_apart([file], memory=24 * 2**20)


@pytest.mark.parametrize("name", ["transformer_blocks.{}.attn.to_q{}.lora_A.weight", "{}{}", "{}."])
def test_the_largest_header_that_is_read_stays_within_the_limits(name: str, tmp_path: Path) -> None:
    """As many tensors as may be, with names as long as they may be then."""
    tensor = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    length = (MAX_HEADER - 1000) // MAX_TENSORS - len(tensor) - 4
    names = (
        name.format(n, "_to_q.lora" * 20)[: length - 6] + f"{n:06}" for n in range(MAX_TENSORS)
    )
    text = "{" + ",".join(f'"{one}":{tensor}' for one in names) + "}"
    file = tmp_path / "full.safetensors"
    file.write_bytes(framed(text.encode()))
    reading = read_apart([file])["full.safetensors"]
    assert reading["said"] in ("not an adapter", "another family", "can't tell")
    assert reading["seconds"] <= SECONDS


@pytest.mark.parametrize("unit", [".", "_", "default.", "lora_", ".lora_A", "to_q_", ".out", "0_1"])
@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_no_name_is_slow_to_take_apart(prefix: str, unit: str) -> None:
    """Patterns that search back and forth would take minutes for these."""
    long = [f"{prefix}{(unit * 512)[:480]}{n}.lora_down.weight" for n in range(3000)]
    tensors = {name: TensorInfo("F32", (4, 64)) for name in long}
    began = time.perf_counter()
    examine(Header(tensors, {}, 8, None))
    stock_result(tensors)
    assert time.perf_counter() - began <= SECONDS


def test_every_hostile_file_has_its_own_name() -> None:
    names = [one.name for one in hostile()]
    assert len(names) == len(set(names)) >= 60


def test_one_wrong_tensor_among_right_ones_is_found() -> None:
    right = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    wrong = {"dtype": "F32", "shape": [2], "data_offsets": [4, 8]}
    text = framed(json.dumps({"a": right, "b": wrong}).encode())
    with pytest.raises(AdapterRefused, match="'b'"):
        parse_header(text, name="x", file_bytes=len(text) + 8)
