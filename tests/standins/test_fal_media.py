"""The images that the stand-in makes and serves, and what can be wrong with them."""

import io

import httpx
import pytest
from PIL import Image

from tests.standins import fal_faults as faults
from tests.standins.fal import FalStandIn
from tests.standins.fal_images import bomb
from tests.standins.fal_queue import FLAG_WORD
from tests.standins.raw_client import RawClient


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_images_are_what_was_asked_for(
    client: RawClient, fal: FalStandIn, file_format: str
) -> None:
    wanted = {"image_size": {"width": 96, "height": 64}, "output_format": file_format}
    images = [client.image(fal, seed=seed, **wanted) for seed in (7, 7, 8)]
    assert [(i.size, i.format) for i in images] == [((96, 64), file_format.upper())] * 3
    first, again, other = (i.convert("RGB").tobytes() for i in images)
    assert first == again != other


def test_sync_mode_puts_the_image_into_the_answer(client: RawClient, fal: FalStandIn) -> None:
    (image,) = client.result(fal, sync_mode=True)["images"]
    assert image["url"].startswith("data:image/png;base64,")


def is_black(image: Image.Image) -> bool:
    return image.convert("RGB").getbbox() is None


def test_the_safety_checker_leaves_a_black_image(client: RawClient, fal: FalStandIn) -> None:
    prompt = f"a {FLAG_WORD} cat"
    assert client.result(fal, prompt=prompt)["has_nsfw_concepts"] == [True]
    assert is_black(client.image(fal, prompt=prompt))
    assert not is_black(client.image(fal, prompt=prompt, enable_safety_checker=False))


def test_jobs_that_go_wrong(client: RawClient, fal: FalStandIn) -> None:
    fal.inject(faults.no_images())
    assert client.result(fal, num_images=2)["images"] == []
    fal.inject(faults.fewer_images(1))
    assert len(client.result(fal, num_images=3)["images"]) == 1
    fal.inject(faults.black())
    assert is_black(client.image(fal))
    fal.inject(faults.flagged())
    assert client.result(fal)["has_nsfw_concepts"] == [True]
    assert client.result(fal)["has_nsfw_concepts"] == [False]


def media_url(client: RawClient, fal: FalStandIn) -> str:
    url: str = client.result(fal)["images"][0]["url"]
    return url


def test_media_cut_short_and_dripping(client: RawClient, fal: FalStandIn) -> None:
    url = media_url(client, fal)
    fal.inject(faults.truncated_body("media"), faults.drip("media", 0.5))
    with pytest.raises(httpx.RemoteProtocolError):
        client.http.get(url)
    with client.http.stream("GET", url) as answer:
        pieces = answer.iter_raw()
        assert [len(next(pieces)) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("declared", [True, False])
def test_oversized_media(client: RawClient, fal: FalStandIn, declared: bool) -> None:
    url = media_url(client, fal)
    fal.inject(faults.oversized(5_000_000, declared=declared))
    answer = client.http.get(url)
    assert len(answer.content) == 5_000_000
    assert ("content-length" in answer.headers) is declared


def test_media_that_are_not_what_they_say(client: RawClient, fal: FalStandIn) -> None:
    url = media_url(client, fal)
    private = "http://169.254.169.254/"
    fal.inject(faults.jpeg_as_png(), faults.media(b"<svg/>"), faults.redirect(private))
    jpeg, svg, moved = (client.http.get(url) for _ in range(3))
    assert jpeg.headers["content-type"] == svg.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(jpeg.content)).format == "JPEG"
    assert (moved.status_code, moved.headers["location"]) == (302, private)


def test_the_bomb_is_small_and_huge() -> None:
    assert len(bomb()) < 100_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb()))


def test_expired_urls_are_fresh_once_the_result_is_fetched_again(
    client: RawClient, fal: FalStandIn
) -> None:
    fal.inject(faults.expired())
    result_url = client.finished(fal)["response_url"]
    urls = [client.http.get(result_url).json()["images"][0]["url"] for _ in range(2)]
    assert [client.http.get(url).status_code for url in urls] == [404, 200]
