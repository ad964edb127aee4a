"""Rows 39 to 45: bringing the images home. Whole files or none, and nothing that isn't an image."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from generation.errors import MediaBroken, MediaExpired, MediaRefused, PlaygroundError
from history.records import State
from jobs import JobView
from tests.faults.bench import KEY, OWNER, Bench, assert_says
from tests.standins import fal_faults as faults
from tests.standins.fal_images import bomb, picture
from tests.standins.fault_table import Fault


def assert_stored(bench: Bench, job_id: str) -> JobView:
    """The file is there, whole, is what was asked for, and the job was posted once."""
    view = bench.in_state(job_id, State.STORED)
    assert view.problem is None and view.unsaved == ()
    assert len(bench.seen.posts()) == 1
    for image, path in zip(view.job.images, bench.files(), strict=True):
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == image.sha256
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert (opened.format, opened.size) == (image.format, (image.width, image.height))
    return view


def assert_ended(bench: Bench, kind: type[PlaygroundError], *words: str) -> None:
    """The job ends without a file; what the endpoint made stays in the journal."""
    view = bench.run()
    assert view.job.state is State.FAILED
    assert_says(bench.job(view.job.id).error, kind, *words)
    assert view.job.result is not None and view.job.handle is not None
    assert bench.files() == []
    assert len(bench.seen.posts()) == 1


def assert_refused(bench: Bench, fault: Fault, *words: str) -> None:
    bench.fal.inject(fault)
    assert_ended(bench, MediaRefused, "refused", *words)
    assert len(bench.seen.exchanges("media")) == 1


def assert_held(bench: Bench, view: JobView) -> None:
    """The result is kept, the file isn't there, and a click fetches it."""
    assert view.job.state is State.COMPLETED
    assert_says(view.problem, MediaBroken, "did not arrive whole", "kept", "check again")
    assert_says(bench.job(view.job.id).error, MediaBroken)
    assert bench.files() == []
    bench.fal.clear_faults()
    bench.runner.check_again(view.job.id, OWNER)
    assert_stored(bench, view.job.id)


# -- expired -------------------------------------------------------------------


def test_row_39_expired_media_are_had_from_a_fresh_result(bench: Bench) -> None:
    bench.fal.inject(faults.expired())
    assert_stored(bench, bench.submit(num_images=2))
    assert len(bench.seen.exchanges("result")) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_row_39_media_gone_for_good_are_expired(bench: Bench, status: int) -> None:
    bench.fal.inject(faults.answer("media", status, {"detail": "Not Found"}, times=None))
    assert_ended(bench, MediaExpired, "no longer", "same recipe", "seed is kept")
    assert len(bench.seen.exchanges("result")) == 2


def test_row_39_media_and_result_gone_names_the_request(bench: Bench) -> None:
    """After an hour the endpoint knows neither."""
    gone = {"detail": "Not found"}
    bench.fal.inject(faults.slow("media", 60))
    job_id = bench.submit()
    bench.seen.wait_until(lambda ledger: len(ledger.exchanges("media")) == 1)
    bench.close()
    bench.fal.inject(faults.answer("media", 404, gone, times=None))
    bench.fal.inject(faults.answer("status", 404, gone, times=None))
    bench.open()
    view = bench.settled(job_id)
    assert view.job.state is State.FAILED
    assert view.problem is not None and bench.request_id(job_id) in str(view.problem)
    bench.fal.clear_faults()
    bench.runner.check_again(job_id, OWNER)
    assert_stored(bench, job_id)


# -- cut short -----------------------------------------------------------------

HALF = picture((64, 48), "png", 1)[:150]


@pytest.mark.parametrize(
    "fault",
    [
        faults.truncated_body("media", times=2),
        faults.media(HALF, times=2),
        faults.reset_before_reading("media", times=2),
        faults.reset_after_accept("media"),
        faults.answer("media", 500, {"detail": "Oops"}, times=2),
        faults.answer("media", 206, HALF),
        faults.answer("media", 200, b"", times=1),
    ],
    ids=["body", "file", "reset", "reset after", "500", "206", "empty"],
)
def test_row_40_truncated_media_are_retried(bench: Bench, fault: Fault) -> None:
    bench.fal.inject(fault)
    assert_stored(bench, bench.submit())


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_row_40_truncated_media_are_never_stored(bench: Bench, kind: str) -> None:
    whole = picture((640, 480), kind, 1)
    bench.fal.inject(faults.media(whole[: len(whole) * 2 // 3], times=None))
    view = bench.run(output_format=kind)
    assert len(bench.seen.exchanges("media")) == 3
    assert_held(bench, view)


def test_row_40_one_broken_image_of_four_keeps_all_waiting(bench: Bench) -> None:
    """A job is stored whole: a click later all four are there, once."""
    bench.fal.inject(faults.truncated_body("media", times=12))
    view = bench.run(num_images=4)
    assert_held(bench, view)
    assert len(bench.files()) == 4


def test_row_40_a_broken_image_is_fetched_after_a_restart(bench: Bench) -> None:
    bench.fal.inject(faults.truncated_body("media", times=None))
    view = bench.run()
    bench.fal.clear_faults()
    bench.restart()
    assert_stored(bench, view.job.id)


# -- not an image, or too much of one ------------------------------------------


def test_row_41_oversized_by_its_own_account_is_refused_unread(bench: Bench) -> None:
    assert_refused(bench, faults.oversized(200_000_000), "64 MiB")
    # Not even the part that would be allowed was taken: the kernel's buffers hold far less.
    bench.seen.wait_until(lambda ledger: len(ledger.exchanges("media")) == 1)
    assert not bench.seen.exchanges("media")[0].answered


def test_row_41_oversized_without_saying_so_is_refused(bench: Bench) -> None:
    assert_refused(bench, faults.oversized(200_000_000, declared=False), "64 MiB")


@pytest.mark.parametrize(("side", "words"), [(5_000, ["5000 × 5000"]), (20_000, [])])
def test_row_41_a_bomb_is_refused(bench: Bench, side: int, words: list[str]) -> None:
    assert_refused(bench, faults.media(bomb(side)), "16 megapixels", *words)


def test_row_41_a_small_answer_that_would_unpack_to_much_is_refused(bench: Bench) -> None:
    headers = (("Content-Type", "image/png"), ("Content-Encoding", "gzip"))
    assert_refused(bench, faults.answer("media", 200, b"\x1f\x8b" + bytes(90), headers), "gzip")


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        b"GIF89a" + bytes(100),
        b"%PDF-1.7\n" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + b"<html>" * 20,
        b'{"detail": "Not Found"}',
    ],
    ids=["html", "svg", "gif", "pdf", "png in name", "json"],
)
def test_row_42_html_or_svg_as_png_is_refused(bench: Bench, body: bytes) -> None:
    assert_refused(bench, faults.media(body), "not a PNG, JPEG or WebP image")


@pytest.mark.parametrize("asked", ["png", "webp"])
def test_row_43_jpeg_labelled_png_gets_the_right_extension(bench: Bench, asked: str) -> None:
    bench.fal.inject(faults.jpeg_as_png())
    view = assert_stored(bench, bench.submit(output_format=asked))
    [path], [image] = bench.files(), view.job.images
    assert path.suffix == ".jpg" and image.format == "JPEG"
    assert path.read_bytes().startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_pixels_are_the_endpoints_own(bench: Bench, kind: str) -> None:
    view = assert_stored(bench, bench.submit(output_format=kind, seed=11))
    theirs = Image.open(io.BytesIO(picture((64, 48), kind, 11)))
    with Image.open(bench.files()[0]) as ours:
        assert ours.tobytes() == theirs.tobytes()
    assert view.job.images[0].format == kind.upper()


def test_an_image_inside_the_answer_needs_no_fetch(bench: Bench) -> None:
    view = assert_stored(bench, bench.submit(sync_mode=True, num_images=2))
    assert bench.seen.exchanges("media") == []
    kept = bench.job(view.job.id).result
    assert kept is not None and [image.url for image in kept.images] == ["", ""]


def test_an_image_inside_the_answer_may_be_broken_too(bench: Bench) -> None:
    odd = [{"url": "data:image/png;base64,!!!", "width": 64, "height": 48}]
    bench.fal.inject(faults.patch("result", {"images": odd}))
    assert_ended(bench, MediaRefused, "base64")


# -- forbidden addresses -------------------------------------------------------


@contextmanager
def canary() -> Iterator[tuple[int, list[object]]]:
    """A loopback port, and who connected to it."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def count() -> None:
            with suppress(OSError):
                while True:
                    connection, address = server.accept()
                    visitors.append(address)
                    connection.close()

        threading.Thread(target=count, daemon=True).start()
        yield server.getsockname()[1], visitors
        server.shutdown(socket.SHUT_RDWR)


PRIVATE = [
    "https://localhost:{}/secret",
    "https://[::1]:{}/secret",
    "https://[::ffff:127.0.0.1]:{}/secret",
    "https://2130706433:{}/secret",
    "https://0x7f.1:{}/secret",
    "https://127.1:{}/secret",
    "https://10.0.0.1:{}/secret",
    "https://192.168.1.1/",
    "https://172.16.0.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://[fd00:ec2::254]/latest/meta-data",
    "https://[64:ff9b::7f00:1]:{}/",
    "https://[2002:7f00:1::]:{}/",
    "https://0.0.0.0:{}/",
    "http://localhost:{}/secret",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc/passwd",
    "//localhost:{}/secret",
    "ftp://localhost:{}/secret",
    "https://v3.fal.media@localhost:{}/secret",
]


@pytest.mark.parametrize("target", PRIVATE)
def test_row_44_redirect_to_a_private_address_is_refused(bench: Bench, target: str) -> None:
    """No connection is made there: the canary's on loopback, all others by the test's guard."""
    with canary() as (port, visitors):
        bench.fal.inject(faults.redirect(target.format(port), times=None))
        assert_ended(bench, MediaRefused, "refused")
        assert visitors == []
    assert len(bench.seen.exchanges("media")) == 1


def test_row_44_an_answer_that_names_a_private_address_is_refused(bench: Bench) -> None:
    with canary() as (port, visitors):
        image = {"url": f"https://localhost:{port}/1.png", "width": 64, "height": 48}
        bench.fal.inject(faults.patch("result", {"images": [image]}))
        assert_ended(bench, MediaRefused, "localhost", "public internet")
        assert visitors == []


def test_row_44_a_redirect_on_the_same_host_is_followed_without_the_key(bench: Bench) -> None:
    first = bench.run(seed=5).job
    assert first.result is not None
    bench.fal.inject(faults.redirect(first.result.images[0].url))
    second = bench.run(seed=6).job
    assert second.state is State.STORED
    asked = bench.seen.exchanges("media")
    assert [e.status for e in asked] == [200, 302, 200]
    assert [e for e in asked if e.mentions(KEY) or e.mentions("Authorization")] == []


def test_row_44_redirects_without_end_are_refused(bench: Bench) -> None:
    bench.fal.inject(faults.redirect("0.png", times=None))
    assert_ended(bench, MediaRefused, "more than 5 redirects")
    assert len(bench.seen.exchanges("media")) == 6


# -- slow ----------------------------------------------------------------------


def test_row_45_one_byte_a_second_is_cut_off_and_retried(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(media=1.0)
    bench.fal.inject(faults.drip("media", 0.5))
    started = time.monotonic()
    assert_stored(bench, bench.submit())
    assert time.monotonic() - started < 20
    assert len(bench.seen.exchanges("media")) == 2


@pytest.mark.parametrize("way", [faults.drip, faults.slow])
def test_row_45_media_that_stay_slow_are_kept_for_later(
    new_bench: Callable[..., Bench], way: Callable[..., Fault]
) -> None:
    bench = new_bench(media=0.6)
    bench.fal.inject(way("media", 30, times=None))
    view = bench.run()
    assert len(bench.seen.exchanges("media")) == 3
    assert_held(bench, view)


def test_nothing_of_an_image_is_on_disk_before_all_of_it_is_here(
    new_bench: Callable[..., Bench],
) -> None:
    bench = new_bench()
    bench.fal.inject(faults.drip("media", 0.05))
    job_id = bench.submit()
    bench.in_state(job_id, State.COMPLETED)
    bench.seen.wait_until(lambda ledger: len(ledger.exchanges("media")) == 1)
    assert list(Path(bench.folder).glob("images/**/*.*")) == []
    bench.restart()
    assert_stored(bench, job_id)
