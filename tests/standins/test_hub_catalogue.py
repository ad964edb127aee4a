"""The made-up repositories: as many and as odd as they say, and the same every time."""

import io
import json

import pytest
from PIL import Image

from tests.standins import hub_special
from tests.standins.hub_catalogue import catalogue
from tests.standins.hub_repos import BASE, TURBO, Repo, RepoFile
from tests.standins.hub_special import ADAPTER
from tests.standins.hub_weights import lora, weights

REPOS = {repo.id: repo for repo in catalogue()}


def card(repo: Repo) -> dict[str, object]:
    return repo.card if isinstance(repo.card, dict) else {}


def test_the_same_seed_makes_the_same_repositories() -> None:
    assert catalogue(3) == catalogue(3) != catalogue(4)
    assert [repo.sha for repo in catalogue(3)] == [repo.sha for repo in catalogue(3)]


def test_there_are_as_many_as_asked_for_and_none_twice() -> None:
    assert len(REPOS) == 80
    assert len({repo.id.lower() for repo in catalogue(0, 3000)}) == 3000
    with pytest.raises(ValueError):
        catalogue(0, 59)


def test_most_are_found_as_adapters_of_turbo_and_some_of_the_base_model() -> None:
    tagged = [repo for repo in REPOS.values() if ADAPTER in repo.all_tags]
    base = [repo for repo in REPOS.values() if f"base_model:adapter:{BASE}" in repo.all_tags]
    assert len(tagged) >= 60 and len(base) >= 5
    bases = [card(repo).get("base_model") for repo in REPOS.values()]
    assert TURBO in bases and [TURBO] in bases and [TURBO, BASE] in bases


def test_cards_differ_as_real_ones_do() -> None:
    ordinary = [card(repo) for repo in REPOS.values() if card(repo)]
    prompts = [c.get("instance_prompt", "missing") for c in ordinary]
    assert None in prompts and "missing" in prompts and "pixel art" in prompts
    assert sum("license" not in c for c in ordinary) > 5
    assert sum("widget" not in c for c in ordinary) > 5


def test_several_checkpoints_differ_in_hash_and_date() -> None:
    several = [repo for repo in REPOS.values() if len(_weights(repo)) > 2]
    assert len(several) > 5
    for repo in several:
        assert len({file.sha256 for file in _weights(repo)}) == len(_weights(repo))
        assert len({file.date for file in _weights(repo)}) > 1


def _weights(repo: Repo) -> list[RepoFile]:
    return [file for file in repo.files if file.suffix == ".safetensors"]


def test_repositories_without_weights_that_may_be_taken() -> None:
    assert not _weights(REPOS[hub_special.NO_SAFETENSORS])
    assert not _weights(REPOS[hub_special.GGUF])


@pytest.mark.parametrize("repo_id", sorted(REPOS))
def test_every_weight_file_has_an_honest_header(repo_id: str) -> None:
    broken = (hub_special.HTML_WEIGHTS, hub_special.CUT_WEIGHTS)
    for file in _weights(REPOS[repo_id]):
        size = int.from_bytes(file.read(0, 8), "little")
        if repo_id in broken:
            assert size + 8 > file.length
            continue
        table = json.loads(file.read(8, 8 + size))
        ends = [t["data_offsets"][1] for key, t in table.items() if key != "__metadata__"]
        assert 8 + size + max(ends) == file.length


def test_a_large_header_and_a_full_sized_adapter() -> None:
    (long,) = _weights(REPOS[hub_special.LARGE_HEADER])
    assert int.from_bytes(long.read(0, 8), "little") > 100_000
    big = weights("big.safetensors", lora(96, feed_forward=True))
    assert big.length > 170_000_000 and len(big.body) < 100_000


def test_pictures_can_be_opened() -> None:
    pictures = [f for repo in REPOS.values() for f in repo.files if f.suffix in (".png", ".jpg")]
    assert len(pictures) > 30
    for file in pictures:
        Image.open(io.BytesIO(file.body)).load()


def test_repositories_and_files_survive_the_way_to_another_process() -> None:
    for repo in REPOS.values():
        again = Repo.from_json(json.loads(json.dumps(repo.to_json())))
        assert again == repo and again.sha == repo.sha
