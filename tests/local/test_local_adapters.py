"""The engine's adapters: files in, merged weights and a true account of them out."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backends.local import adapters, merging
from backends.local.adapters import MergedAdapters
from backends.local.factors import AdapterFile, read_adapter
from backends.local.recent import Recent
from generation.errors import AdapterError, AdapterRefused, AdapterUnavailable
from generation.lora_file import LoraFile
from tests.local.files import numbers, save
from tests.local.tiny import merged, transformer, weights, wide, write
from tests.standins.adapters import adapter


def found(name: str, folder: Path) -> LoraFile:
    one = adapter(name)
    return LoraFile(f"someone/{name}", file=one.file_name, sha="a" * 40, local=write(one, folder))


@pytest.fixture
def model() -> torch.nn.Module:
    return transformer()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, by name."""
    seen: list[str] = []

    def noted(path: Path, shapes: dict[str, tuple[int, ...]], name: str) -> AdapterFile:
        seen.append(name)
        return read_adapter(path, shapes, name)

    monkeypatch.setattr("backends.local.adapters.read_adapter", noted)
    return seen


def test_what_was_applied_is_told(model: torch.nn.Module, tmp_path: Path) -> None:
    base = wide(weights(model))
    ours = MergedAdapters(model)
    told = ours.apply([(found("kohya", tmp_path), 0.8), (found("comfyui-loha", tmp_path), -0.5)])
    assert [(one.path, one.scale, one.file, one.sha, one.applied) for one in told] == [
        ("someone/kohya", 0.8, "kohya.safetensors", "a" * 40, True),
        ("someone/comfyui-loha", -0.5, "comfyui-loha.safetensors", "a" * 40, True),
    ]
    assert ours.warnings == ()
    right = merged(base, [(adapter("kohya"), 0.8), (adapter("comfyui-loha"), -0.5)])
    now = wide(weights(model))
    assert all(np.allclose(now[name], right[name], 1e-5, 2e-6) for name in right)
    ours.restore()
    assert all(np.array_equal(base[name], one) for name, one in wide(weights(model)).items())
    assert ours.merged == ()


def test_what_changes_nothing_is_said(model: torch.nn.Module, tmp_path: Path) -> None:
    ours = MergedAdapters(model)
    loras = [(found("kohya", tmp_path), 0.0), (found("kohya-text-encoder", tmp_path), 1.0)]
    assert [one.applied for one in ours.apply(loras)] == [False, True]
    assert ours.warnings == (
        "'kohya.safetensors' changes nothing at 0.",
        "'kohya-text-encoder.safetensors' holds 2 keys of a text encoder; they are left out.",
    )


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [("flux", AdapterRefused), ("gone", AdapterUnavailable), ("nowhere", AdapterUnavailable)],
)
def test_one_that_fails_leaves_the_base(
    wrong: str, kind: type[AdapterError], model: torch.nn.Module, tmp_path: Path
) -> None:
    before = weights(model)
    ours = MergedAdapters(model)
    right = found("kohya", tmp_path)
    bad = {
        "flux": found("flux", tmp_path),
        "gone": dataclasses.replace(right, local=tmp_path / "gone", file=None),
        "nowhere": dataclasses.replace(right, local=None),
    }[wrong]
    ours.apply([(right, 1.0)])
    with pytest.raises(kind):
        ours.apply([(right, 1.0), (bad, 1.0)])
    assert all(torch.equal(before[name], one) for name, one in weights(model).items())
    assert ours.merged == ()
    assert ours.apply([(right, 1.0)])[0].applied


def test_a_file_is_read_once_and_again_when_it_changed(
    model: torch.nn.Module, tmp_path: Path, reads: list[str]
) -> None:
    ours = MergedAdapters(model)
    lora = found("diffusers", tmp_path)
    for scale in (1.0, 0.5, 1.0):
        ours.apply([(lora, scale)])
        ours.restore()
    assert reads == ["diffusers.safetensors"]
    before = weights(model)
    assert lora.local is not None
    module = "layers.0.attention.to_q"
    save(lora.local, {f"{module}.diff": numbers(64, 64)})
    os.utime(lora.local, (1, 1))
    ours.apply([(lora, 1.0)])
    now = weights(model)
    assert [name for name in now if not torch.equal(now[name], before[name])] == [
        f"{module}.weight"
    ]
    assert len(reads) == 2


def test_no_more_is_kept_than_allowed(
    model: torch.nn.Module, tmp_path: Path, reads: list[str]
) -> None:
    """Three take part at once, although only one of them may be kept."""
    names = ("diffusers", "comfyui", "bare")
    loras = [(found(name, tmp_path), 1.0) for name in names]
    size = adapter("diffusers").size()
    ours = MergedAdapters(model, on_device=size + 10, on_host=size + 10)
    assert all(one.applied for one in ours.apply(loras))
    assert ours._files.size <= size + 10 and ours._factors.size <= size + 10
    ours.apply([loras[2]])
    assert len(reads) == 3
    ours.apply([loras[0]])
    assert len(reads) == 4


def test_shrinking_leaves_the_weights_and_the_way_back(
    model: torch.nn.Module, tmp_path: Path, reads: list[str]
) -> None:
    before = weights(model)
    ours = MergedAdapters(model)
    lora = found("comfyui", tmp_path)
    ours.apply([(lora, 1.0)])
    during = weights(model)
    ours.shrink()
    assert all(torch.equal(during[name], one) for name, one in weights(model).items())
    assert ours._factors.size == 0
    ours.restore()
    assert all(torch.equal(before[name], one) for name, one in weights(model).items())
    ours.apply([(lora, 1.0)])
    assert all(torch.equal(during[name], one) for name, one in weights(model).items())
    assert len(reads) == 1


@pytest.mark.parametrize(("free", "expected"), [(10**9, "device"), (1000, "host")])
def test_the_base_is_kept_where_there_is_room(
    free: int, expected: merging.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = SimpleNamespace(device=torch.device("cuda"), nbytes=500)
    on_gpu: Any = SimpleNamespace(parameters=lambda: [weight])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 10**9))
    assert adapters._place(on_gpu, spare=600) == expected


# -- what was used last --------------------------------------------------------


def test_the_one_used_longest_ago_goes_first() -> None:
    kept: Recent[str, str] = Recent(10)
    made: list[str] = []

    def get(key: str, size: int) -> None:
        def make() -> str:
            made.append(key)
            return key

        assert kept.get(key, size, make) == key

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key, 4)
    assert made == ["a", "b", "c", "b"]
    assert kept.size == 8
    get("large", 11)
    assert kept.size == 0
    get("large", 11)
    assert made[-2:] == ["large", "large"]


def test_what_could_not_be_made_is_not_kept() -> None:
    kept: Recent[str, int] = Recent(10)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", 4, lambda: 1 // 0)
    assert kept.get("a", 4, lambda: 5) == 5
    kept.clear()
    assert kept.get("a", 4, lambda: 6) == 6
