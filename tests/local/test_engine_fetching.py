"""A model that has to be downloaded first: what is fetched, what is told, what can fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from backends.local import fetching
from backends.local.engine import Engine
from backends.local.fetching import find_model
from backends.local.job import Stopped
from backends.local.options import LocalOptions
from generation.errors import BackendUnavailable
from tests.local.engine_bench import Bench
from tests.standins.fal import closed_port
from tests.standins.hub import HubStandIn
from tests.standins.hub_repos import READER_TOKEN, Repo, RepoFile

MODEL = "someone/tiny-z-image"


@pytest.fixture
def hub(
    tiny: LocalOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubStandIn]:
    """A Hub with the tiny pipeline, beside it what must not be fetched; and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_EVERY", 0)
    folder = Path(tiny.model)
    files = [
        RepoFile(str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    others = [
        RepoFile("vae/old.bin", b"pickle"),
        RepoFile("run.py", b"x"),
        RepoFile("a.ckpt", b"x"),
    ]
    with HubStandIn(
        (Repo(MODEL, (*files, *others)), Repo("someone/mine", private=True))
    ) as running:
        yield running


@pytest.fixture
def options(tiny: LocalOptions, hub: HubStandIn) -> LocalOptions:
    return replace(tiny, model=MODEL, hub=hub.url)


def never() -> bool:
    return False


def quiet(_line: str) -> None:
    pass


def weights_asked_for(hub: HubStandIn) -> int:
    return sum(request.stage == "cdn" for request in hub.ledger.requests())


def test_a_model_is_downloaded_with_its_progress_told(
    options: LocalOptions, hub: HubStandIn
) -> None:
    bench = Bench(Engine(options))
    assert bench.run().images
    lines = [line for event in bench.told for line in event.logs]
    told = [line for line in lines if line.startswith(f"Downloading {MODEL}: ")]
    assert told and told[-1].endswith(" of 0.00 GB") and lines[-1].startswith("Loading the model")
    bench.run()
    assert [line for event in bench.told for line in event.logs] == []


def test_no_pickle_and_no_code_is_fetched(options: LocalOptions) -> None:
    folder = find_model(MODEL, options, quiet, never)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "model_index.json" in names and "diffusion_pytorch_model.safetensors" in names
    assert not {"old.bin", "run.py", "a.ckpt"} & names


def test_a_second_start_fetches_nothing_again_and_needs_no_hub(
    options: LocalOptions, hub: HubStandIn
) -> None:
    first = find_model(MODEL, options, quiet, never)
    asked = weights_asked_for(hub)
    assert asked == 3, "the weights"
    assert find_model(MODEL, options, quiet, never) == first
    assert weights_asked_for(hub) == asked
    hub.close()
    assert find_model(MODEL, options, quiet, never) == first


@pytest.mark.parametrize("name", ["someone/nothing", "someone/mine", "not a name", "a/b/c"])
def test_a_model_that_isnt_there_is_said_by_name(options: LocalOptions, name: str) -> None:
    with pytest.raises(BackendUnavailable, match="could not be downloaded") as failed:
        find_model(name, options, quiet, never)
    assert repr(name) in failed.value.cause


def test_a_hub_that_is_down_is_said(options: LocalOptions) -> None:
    with closed_port() as port:
        away = replace(options, hub=f"http://127.0.0.1:{port}")
        with pytest.raises(BackendUnavailable, match="could not be downloaded"):
            find_model(MODEL, away, quiet, never)


def test_a_private_model_comes_with_the_token(options: LocalOptions, hub: HubStandIn) -> None:
    hub.add_repo(Repo("someone/hidden", (RepoFile("config.json", b"{}"),), private=True))
    with pytest.raises(BackendUnavailable):
        find_model("someone/hidden", options, quiet, never)
    entitled = replace(options, token=SecretStr(READER_TOKEN))
    assert (find_model("someone/hidden", entitled, quiet, never) / "config.json").is_file()
    assert READER_TOKEN not in repr(entitled)


def test_a_stop_ends_the_download_and_the_next_job_goes_on(
    options: LocalOptions, hub: HubStandIn
) -> None:
    with pytest.raises(Stopped):
        find_model(MODEL, options, quiet, lambda: True)
    assert weights_asked_for(hub) < 3
    bench = Bench(Engine(options))
    with pytest.raises(Stopped):
        bench.run(lambda: any(event.logs for event in bench.told))
    assert bench.engine._loaded is None
    assert bench.run().images
