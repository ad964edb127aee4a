"""Addresses that visitors give for adapters: not one connection to a private one."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from generation.errors import (
    AdapterError,
    AdapterNotFound,
    AdapterRefused,
    AdapterUnavailable,
    ReferenceInvalid,
)
from lora_registry import parts, url_source
from lora_registry.registry import Registry
from lora_registry.url_source import UrlSource
from lora_registry.verdicts import Fit
from lora_registry.work import Work
from tests.standins.adapters import adapter

PUBLIC, OTHER = "93.184.216.34", "1.1.1.1"
CANARY = "hf_canaryOfTheAdapters"
FILE = adapter("diffusers").data()
URL = "https://files.example/style.safetensors"

PRIVATE = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "127.0.0.1",
    "127.255.255.254", "169.254.0.1", "169.254.169.254", "100.64.0.1", "100.127.255.255",
    "0.0.0.0", "0.1.2.3", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "240.0.0.1",
    "255.255.255.255", "224.0.0.1", "239.255.255.255",
    "::1", "::", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "2002::", "2002:7f00:1::", "2002:5db8:d822::1", "2001::1", "2001:db8::1", "3fff::1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::5db8:d822", "64:ff9b:1::7f00:1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "100::1",
]  # fmt: skip

Answer = Callable[[httpx.Request], httpx.Response]


class Body(httpx.AsyncByteStream):
    """A body that arrives in pieces."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self._pieces = pieces
        self._endless = endless
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += 1
            yield piece
        while self._endless:
            self.taken += 1
            yield bytes(50_000)


def ranged(request: httpx.Request, data: bytes = FILE) -> httpx.Response:
    """A host that knows ranges."""
    asked = request.headers.get("range")
    if asked is None:
        declared = {"Content-Length": str(len(data))}
        return httpx.Response(200, headers=declared, stream=Body(data[:7], data[7:]))
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1, len(data))
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return httpx.Response(206, headers=headers, stream=Body(data[start:stop]))


def redirecting(*locations: str, status: int = 302) -> Answer:
    """Each request is sent to the next place; the last one is answered."""
    rest = list(locations)

    def answer(request: httpx.Request) -> httpx.Response:
        if rest:
            return httpx.Response(status, headers={"Location": rest.pop(0)})
        return ranged(request)

    return answer


@dataclass
class World:
    """Names and the addresses they have, one question after the other; who was connected to."""

    names: Mapping[str, list[list[str]]]
    answer: Answer = ranged
    asked: list[str] = field(default_factory=list)
    reached: list[httpx.Request] = field(default_factory=list)

    async def resolve(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        if host in self.names:
            answers = self.names[host]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        if ":" in host:
            return [str(ipaddress.ip_address(host))]
        try:  # numbers in any spelling are addresses to the C library as well
            return [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, f"no {host}") from None

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.handle), trust_env=False)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.reached.append(request)
        return self.answer(request)

    def hosts(self) -> list[str]:
        return [request.url.host for request in self.reached]


Make = Callable[..., tuple[Registry, World]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A registry, with a token that must not travel, in a world of its own."""
    opened: list[Registry] = []

    def registry(
        names: Mapping[str, list[list[str]]] | None = None, answer: Answer = ranged
    ) -> tuple[Registry, World]:
        known = {"files.example": [[PUBLIC]], "cdn.example": [[OTHER]], **(names or {})}
        world = World(known, answer)
        source = UrlSource(
            tmp_path / "files", Work(2, "urls"), client=world.client, resolver=world.resolve
        )
        opened.append(Registry(tmp_path, token=SecretStr(CANARY), urls=source))
        return opened[-1], world

    yield registry
    for each in opened:
        each.close()


def attempts(registry: Registry, url: str) -> list[AdapterError]:
    """What each way to use an address says of it."""
    calls: list[Callable[[], Any]] = [
        lambda: registry.inspect(url),
        lambda: registry.hand_over(url),
        lambda: registry.hand_over(url, as_file=True),
    ]
    errors: list[AdapterError] = []
    for call in calls:
        with pytest.raises(AdapterError) as caught:
            asyncio.run(call())
        errors.append(caught.value)
    return errors


def assert_refused(errors: list[AdapterError], world: World, *reached: str) -> None:
    assert {type(error) for error in errors} <= {AdapterRefused, ReferenceInvalid}
    assert set(world.hosts()) == set(reached)


def test_a_public_file_is_read_by_one_range_and_named(make: Make) -> None:
    registry, world = make()
    told = asyncio.run(registry.inspect(f"{URL}?signature=secret"))
    assert told.reference == f"{URL}?signature=secret" and told.file == "style.safetensors"
    assert told.fit["hosted"].fit is Fit.FITS and told.problem is None and not told.private
    (request,) = world.reached
    assert request.headers["range"] == "bytes=0-99999"
    assert (request.url.host, request.headers["host"]) == (PUBLIC, "files.example")
    assert request.extensions["sni_hostname"] == "files.example"
    given = asyncio.run(registry.hand_over(f"{URL}?signature=secret"))
    assert (given.url, given.local) == (f"{URL}?signature=secret", None)


def test_as_a_file_it_is_brought_here_once(make: Make) -> None:
    registry, world = make()
    calls: list[tuple[int, int | None]] = []
    first = asyncio.run(
        registry.hand_over(URL, as_file=True, progress=lambda *done: calls.append(done))
    )
    assert first.local is not None and first.local.read_bytes() == FILE
    assert calls[-1] == (len(FILE), len(FILE))
    again = asyncio.run(registry.hand_over(URL, as_file=True))
    assert again == first and len(world.reached) == 2
    assert [path.suffix for path in first.local.parent.iterdir()] == [".safetensors"]


def test_a_file_that_changed_there_is_fetched_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_source, "FRESH", 0.0)
    served = [FILE]
    registry, _ = make(answer=lambda request: ranged(request, served[0]))
    first = asyncio.run(registry.hand_over(URL, as_file=True))
    served[0] = adapter("comfyui-alpha").data()
    second = asyncio.run(registry.hand_over(URL, as_file=True))
    assert first.sha != second.sha
    assert second.local is not None and second.local.read_bytes() == served[0]


# -- addresses -----------------------------------------------------------------


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused_unasked(make: Make, address: str) -> None:
    registry, world = make()
    host = f"[{address}]" if ":" in address else address
    assert_refused(attempts(registry, f"https://{host}/x.safetensors"), world)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_to_one_is_refused(make: Make, address: str) -> None:
    names = {"inside.example": [[address]], "both.example": [[PUBLIC, address]]}
    registry, world = make(names)
    assert_refused(attempts(registry, "https://inside.example/x.safetensors"), world)
    assert_refused(attempts(registry, "https://both.example/x.safetensors"), world)
    assert {"inside.example", "both.example"} <= set(world.asked)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_redirect_to_one_isnt_followed(make: Make, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    location = f"https://{host}/x.safetensors"
    registry, world = make(answer=lambda _: httpx.Response(302, headers={"Location": location}))
    assert_refused(attempts(registry, URL), world, PUBLIC)


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "127.0.0.1.", "10.1",
     "0xa9fea9fe", "2852039166"],
)  # fmt: skip
def test_numbers_in_any_spelling_are_addresses(make: Make, host: str) -> None:
    registry, world = make({"127.0.0.1.": [["127.0.0.1"]]})
    assert_refused(attempts(registry, f"https://{host}/x.safetensors"), world)


@pytest.mark.parametrize(
    "location",
    ["http://files.example/x.safetensors", "file:///etc/passwd", "ftp://files.example/x",
     "gopher://files.example/x", "//127.0.0.1/x", "https://user@files.example/x",
     "https://user:word@127.0.0.1/x", "data:text/plain,x", "javascript:alert(1)",
     "https://files.example:99999/x"],
)  # fmt: skip
def test_a_redirect_away_from_https_isnt_followed(make: Make, location: str) -> None:
    registry, world = make(answer=lambda _: httpx.Response(302, headers={"Location": location}))
    errors = attempts_or_problems(registry, URL)
    assert {type(error) for error in errors} <= {AdapterRefused, AdapterUnavailable}
    assert set(world.hosts()) == {PUBLIC}


def attempts_or_problems(registry: Registry, url: str) -> list[AdapterError]:
    """As `attempts`, where an address may also just not be readable now."""
    told: list[AdapterError] = []
    try:
        inspected = asyncio.run(registry.inspect(url))
        assert inspected.problem is not None and inspected.anatomy is None
        told.append(inspected.problem)
    except AdapterError as exc:
        told.append(exc)
    with pytest.raises(AdapterError) as caught:
        asyncio.run(registry.hand_over(url, as_file=True))
    return [*told, caught.value]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_public_internet_is_checked_and_pinned_anew(
    make: Make, status: int
) -> None:
    registry, world = make(answer=redirecting("https://cdn.example/y?z=1", status=status))
    told = asyncio.run(registry.inspect(URL))
    assert told.anatomy is not None and told.reference == URL
    assert world.hosts() == [PUBLIC, OTHER]
    assert [request.headers["host"] for request in world.reached] == [
        "files.example",
        "cdn.example",
    ]
    assert [request.headers["range"] for request in world.reached] == ["bytes=0-99999"] * 2


def test_redirects_end_somewhere(make: Make) -> None:
    registry, world = make(answer=lambda _: httpx.Response(302, headers={"Location": "/again"}))
    assert_refused(attempts(registry, URL), world, PUBLIC)
    assert len(world.reached) == 3 * 6


# -- rebinding -----------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "10.0.0.1"])
def test_a_name_that_changes_its_mind_is_asked_for_each_connection(
    make: Make, address: str
) -> None:
    registry, world = make({"files.example": [[PUBLIC], [address]]})
    assert asyncio.run(registry.inspect(URL)).anatomy is not None
    with pytest.raises(AdapterRefused, match="public internet"):
        asyncio.run(registry.hand_over(URL, as_file=True))
    assert world.hosts() == [PUBLIC]


@pytest.mark.parametrize("address", ["127.0.0.1", "fd00::1", "100.64.0.1"])
def test_a_name_that_changes_within_a_redirect(make: Make, address: str) -> None:
    names = {"files.example": [[PUBLIC], [address]]}
    registry, world = make(names, redirecting("/moved.safetensors"))
    with pytest.raises(AdapterRefused):
        asyncio.run(registry.inspect(URL))
    assert world.hosts() == [PUBLIC]


def test_the_connection_goes_to_the_address_that_was_checked(make: Make) -> None:
    registry, world = make({"files.example": [[PUBLIC], ["127.0.0.1"]]})
    asyncio.run(registry.inspect(URL))
    assert [str(request.url.host) for request in world.reached] == [PUBLIC]
    assert world.asked == ["files.example"]


def test_a_real_listener_on_this_machine_is_never_connected_to(tmp_path: Path) -> None:
    """With the real resolver and client: names and numbers of this machine, and a redirect."""
    accepted: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def accept() -> None:
            try:
                accepted.append(server.accept()[1])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        registry = Registry(tmp_path)
        hosts = ("localhost", "127.0.0.1", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]")
        for host in hosts:
            errors = attempts(registry, f"https://{host}:{port}/x.safetensors")
            assert {type(error) for error in errors} == {AdapterRefused}, host
        registry.close()
    assert accepted == []


# -- what travels, and what comes back -----------------------------------------


def test_no_token_and_no_cookie_is_sent(make: Make) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        response = ranged(request)
        response.headers["set-cookie"] = "session=1; Path=/"
        return response

    registry, world = make(answer=answer)
    asyncio.run(registry.inspect(URL))
    asyncio.run(registry.hand_over(URL, as_file=True))
    for request in world.reached:
        assert "authorization" not in request.headers and "cookie" not in request.headers
        assert CANARY not in str(request.headers) and CANARY not in str(request.url)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_nothing_there(make: Make, status: int) -> None:
    registry, _ = make(answer=lambda _: httpx.Response(status))
    assert {type(error) for error in attempts(registry, URL)} == {AdapterNotFound}


@pytest.mark.parametrize("status", [204, 304, 400, 429, 500, 503])
def test_an_answer_that_says_nothing_is_a_problem_for_now(make: Make, status: int) -> None:
    registry, _ = make(answer=lambda _: httpx.Response(status))
    told = asyncio.run(registry.inspect(URL))
    assert isinstance(told.problem, AdapterUnavailable)
    assert told.fit["hosted"].fit is Fit.UNKNOWN and told.file == "style.safetensors"
    assert asyncio.run(registry.hand_over(URL)).url == URL  # fal may have better luck
    with pytest.raises(AdapterUnavailable):
        asyncio.run(registry.hand_over(URL, as_file=True))


def test_a_name_that_doesnt_exist_is_a_problem_for_now(make: Make) -> None:
    registry, world = make()
    told = asyncio.run(registry.inspect("https://nowhere.example/x.safetensors"))
    assert "can't be found" in str(told.problem) and world.reached == []


@pytest.mark.parametrize(
    "body", [b"", b"<!DOCTYPE html><html></html>", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(99)]
)
def test_other_bytes_are_refused(make: Make, body: bytes) -> None:
    registry, _ = make(answer=lambda _: httpx.Response(200, stream=Body(body)))
    assert {type(error) for error in attempts(registry, URL)} == {AdapterRefused}


def test_another_family_is_refused_before_it_costs(make: Make) -> None:
    data = adapter("flux").data()
    registry, _ = make(answer=lambda request: ranged(request, data))
    assert asyncio.run(registry.inspect(URL)).fit["hosted"].fit is Fit.OTHER_FAMILY
    for as_file in (False, True):
        with pytest.raises(AdapterRefused):
            asyncio.run(registry.hand_over(URL, as_file=as_file))


def test_a_host_that_ignores_ranges_is_read_no_further_than_needed(make: Make) -> None:
    endless = Body(FILE, endless=True)
    registry, _ = make(answer=lambda _: httpx.Response(200, stream=endless))
    assert asyncio.run(registry.inspect(URL)).anatomy is not None
    assert endless.taken < 5


def test_a_compressed_answer_is_refused(make: Make) -> None:
    headers = {"Content-Encoding": "gzip"}
    registry, world = make(
        answer=lambda _: httpx.Response(200, headers=headers, stream=Body(b"\x1f\x8b"))
    )
    errors = attempts(registry, URL)
    assert_refused(errors, world, PUBLIC)
    assert all("it is compressed (gzip)" in error.cause for error in errors)
    assert world.reached[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_above_the_limit_is_not_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, declared: bool
) -> None:
    monkeypatch.setattr(url_source, "MAX_FILE", 1000)
    assert parts.MAX_FILE == 2 * 2**30
    body = Body(FILE, endless=True)

    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return ranged(request)
        headers = {"Content-Length": str(len(FILE))} if declared else {}
        return httpx.Response(200, headers=headers, stream=body)

    registry, _ = make(answer=answer)
    with pytest.raises(AdapterRefused, match="larger than"):
        asyncio.run(registry.hand_over(URL, as_file=True))
    assert (body.taken == 0) is declared and body.taken < 40
    assert list((tmp_path / "files").iterdir()) == []


def test_a_file_that_breaks_off_is_not_kept(make: Make, tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return ranged(request)
        declared = {"Content-Length": str(len(FILE))}
        return httpx.Response(200, headers=declared, stream=Body(FILE[:-5]))

    registry, _ = make(answer=answer)
    with pytest.raises(AdapterUnavailable, match="did not arrive whole"):
        asyncio.run(registry.hand_over(URL, as_file=True))
    assert list((tmp_path / "files").iterdir()) == []


def test_closing_ends_a_download(make: Make, tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return ranged(request)
        return httpx.Response(200, stream=Body(FILE, endless=True))

    registry, _ = make(answer=answer)
    with pytest.raises(AdapterUnavailable, match="stopped"):
        asyncio.run(registry.hand_over(URL, as_file=True, progress=lambda *_: registry.close()))
    assert list((tmp_path / "files").iterdir()) == []
