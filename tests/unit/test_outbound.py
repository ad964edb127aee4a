"""Fetching addresses that somebody else chose: not one connection to a private address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from generation.errors import MediaBroken, MediaError, MediaExpired, MediaRefused
from outbound import MAX_HOPS, Fetcher, is_global, resolve

PUBLIC = "93.184.216.34"
PUBLIC_6 = "2606:2800:220:1:248:1893:25c8:1946"
PNG = b"\x89PNG the rest"

PRIVATE_ADDRESSES = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1",  # RFC 1918
    "127.0.0.1", "127.255.255.254", "::1",  # loopback
    "169.254.0.1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1",  # link-local
    "100.64.0.1", "100.127.255.255",  # carrier-grade NAT
    "2002::", "2002:7f00:1::", "2002:a00:1::1", "2002:5db8:d822::1",  # 6to4
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::5db8:d822", "64:ff9b:1::7f00:1",  # NAT64
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",  # IPv4-mapped
    "::ffff:0:127.0.0.1", "::127.0.0.1", "::10.0.0.1",  # -translated, -compatible
    "224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1",  # multicast
    "0.0.0.0", "0.1.2.3", "::",  # unspecified
    "fc00::1", "fd00:ec2::254", "fec0::1",  # unique and site local
    "2001::1", "2001:0:5db8:d822::1",  # Teredo
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1",  # documentation
    "198.18.0.1", "240.0.0.1", "255.255.255.255", "100::1", "5f00::1", "4000::1",  # reserved
]  # fmt: skip

PUBLIC_ADDRESSES = [
    PUBLIC, "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "11.0.0.1",
    "::ffff:93.184.216.34", PUBLIC_6, "2a00:1450:4001::1", "2400:cb00::1", "2c0f:fb50::1",
]  # fmt: skip


@dataclass
class World:
    """Names, the addresses they have one question after the other, and what each host answers."""

    names: Mapping[str, list[list[str]]]
    answer: Callable[[httpx.Request], httpx.Response]
    asked: list[str] = field(default_factory=list)
    reached: list[httpx.Request] = field(default_factory=list)

    async def resolve(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            try:  # numbers in any spelling are addresses to the C library as well
                return [socket.inet_ntoa(socket.inet_aton(host))]
            except OSError:
                return [str(ipaddress.ip_address(host))] if ":" in host else self._none(host)
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _none(self, host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"no {host}")

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.reached.append(request)
        return self.answer(request)

    def get(self, url: str, **options: object) -> bytes:
        async def fetch() -> bytes:
            transport = httpx.MockTransport(self.handle)
            async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
                settings: dict[str, Any] = {"resolver": self.resolve, **options}
                return await Fetcher(client, **settings).get(url)

        return asyncio.run(fetch())

    def refuses(self, url: str, kind: type[MediaError] = MediaRefused) -> MediaError:
        with pytest.raises(kind) as caught:
            self.get(url)
        return caught.value

    def hosts(self) -> list[str]:
        """Where connections would have gone."""
        return [request.url.host for request in self.reached]


class Body(httpx.AsyncByteStream):
    """A body in pieces, and how many of them were taken."""

    def __init__(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        self._pieces = pieces
        self._pause = pause
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(self._pause)
            self.taken += 1
            yield piece


def picture() -> httpx.Response:
    return httpx.Response(200, stream=Body([PNG[:3], PNG[3:]]))


def world(
    names: Mapping[str, list[str]] | None = None,
    answer: Callable[[httpx.Request], httpx.Response] | None = None,
) -> World:
    known = {"v3.fal.media": [PUBLIC], **(names or {})}
    return World(
        {host: [addresses] for host, addresses in known.items()},
        answer or (lambda _request: picture()),
    )


def redirecting(*locations: str, status: int = 302) -> Callable[[httpx.Request], httpx.Response]:
    """One redirect after the other, and then the picture."""
    left = list(locations)

    def answer(_request: httpx.Request) -> httpx.Response:
        if left:
            return httpx.Response(status, headers={"Location": left.pop(0)})
        return picture()

    return answer


def assert_pinned(request: httpx.Request, address: str, host: str) -> None:
    assert ipaddress.ip_address(request.url.host) == ipaddress.ip_address(address)
    assert request.headers["host"] == host
    assert request.extensions["sni_hostname"] == host.partition(":")[0]
    assert "authorization" not in request.headers


# -- addresses -----------------------------------------------------------------


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_a_private_address_is_not_reached(address: str) -> None:
    """By a name that resolves to it, by a redirect to that name, and written as it is."""
    assert not is_global(address)
    plain = address.partition("%")[0]
    literal = f"[{plain}]" if ":" in plain else plain
    for url in ("https://inside.example/a.png", f"https://{literal}/a.png"):
        direct = world({"inside.example": [address]})
        assert "public internet" in direct.refuses(url).cause
        assert direct.hosts() == []
        behind = world({"inside.example": [address]}, redirecting(url))
        behind.refuses("https://v3.fal.media/a.png")
        assert behind.hosts() == [PUBLIC]


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_a_public_address_is_reached_by_the_address_that_was_checked(address: str) -> None:
    assert is_global(address)
    there = world({"cdn.example": [address]})
    assert there.get("https://cdn.example/a.png?x=1") == PNG
    [request] = there.reached
    assert_pinned(request, address, "cdn.example")
    assert request.url.raw_path == b"/a.png?x=1"


@pytest.mark.parametrize("private", ["10.0.0.1", "::1", "169.254.169.254", "64:ff9b::7f00:1"])
@pytest.mark.parametrize("order", [1, -1])
def test_one_private_address_among_several_is_enough(private: str, order: int) -> None:
    both = world({"both.example": [PUBLIC, private, PUBLIC_6][::order]})
    both.refuses("https://both.example/a.png")
    assert both.hosts() == []


def test_a_name_without_addresses_is_refused() -> None:
    nowhere = world({"empty.example": []})
    nowhere.refuses("https://empty.example/a.png")
    assert nowhere.hosts() == []


@pytest.mark.parametrize("host", ["unknown.example", "a" * 64 + ".example", "a..example", ".x"])
def test_a_name_that_cant_be_found_is_not_reached(host: str) -> None:
    async def strict(name: str, port: int) -> list[str]:
        name.encode("idna")  # as the C library's wrapper does; UnicodeError for impossible labels
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    lost = world()
    with pytest.raises((MediaBroken, MediaRefused)):
        lost.get(f"https://{host}/a.png", resolver=strict)
    assert lost.hosts() == []


# -- rebinding -----------------------------------------------------------------


@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.1", "::1", "100.64.0.1"])
def test_a_name_that_turns_private_later_is_pinned_to_what_was_checked(private: str) -> None:
    rebinding = world()
    rebinding.names = {"twice.example": [[PUBLIC], [private]]}
    assert rebinding.get("https://twice.example/a.png") == PNG
    assert rebinding.asked == ["twice.example"]  # once: there is no second answer to fall for
    assert_pinned(rebinding.reached[0], PUBLIC, "twice.example")


@pytest.mark.parametrize("private", ["127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::"])
def test_a_name_that_turns_private_for_a_redirect_is_refused(private: str) -> None:
    rebinding = world(answer=redirecting("/again.png"))
    rebinding.names = {"twice.example": [[PUBLIC], [private]]}
    rebinding.refuses("https://twice.example/a.png")
    assert rebinding.asked == ["twice.example"] * 2
    assert rebinding.hosts() == [PUBLIC]


# -- spellings -----------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
        "0xA9FEA9FE", "2852039166", "0251.0376.0251.0376", "10.1", "0", "0x0", "127.0.0.1",
        "１２７.0.0.1", "127。0。0。1", "⑩.0.0.1", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]",
        "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
    ],
)  # fmt: skip
def test_an_odd_spelling_of_a_private_address_is_not_reached(host: str) -> None:
    odd = world()
    odd.refuses(f"https://{host}/a.png")
    odd.refuses(f"https://{host}:8443/a.png")
    assert odd.hosts() == []


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "a.localhost", "router"])
def test_a_name_inside_is_not_reached_in_any_case(host: str) -> None:
    names = dict.fromkeys(("localhost", "localhost.", "a.localhost", "router"), ["127.0.0.1"])
    inside = world(names)
    inside.refuses(f"https://{host}/a.png")
    assert inside.asked == [host.lower()]
    assert inside.hosts() == []


@pytest.mark.parametrize(
    "url",
    [
        "https://v3.fal.media@127.0.0.1/", "https://v3.fal.media:443@127.0.0.1/",
        "https://user@v3.fal.media/", "https://user:word@v3.fal.media/", "https://:word@v3.fal.media/",
        "https://[fe80::1%25eth0]/", "https://[::1%lo]/", "https://[fe80::1%25lo]:443/",
        "https://127.0.0.1\\@v3.fal.media/", "https://v3.fal.media\\@127.0.0.1/",
        "https://[127.0.0.1]/", "https://[v3.fal.media]/", "https://v3.fal.media:99999/",
        "https://v3.fal.media:x/", "https://256.1.1.1/", "https://exa mple/", "https://a\x00b/",
        "https://", "https:///a.png", "https:a.png", "//v3.fal.media/a.png", "v3.fal.media",
        "", "/",
    ],
)  # fmt: skip
def test_a_malformed_or_ambiguous_address_is_refused(url: str) -> None:
    odd = world({"[127.0.0.1]": ["127.0.0.1"]})
    with pytest.raises((MediaRefused, MediaBroken)):
        odd.get(url)
    assert odd.hosts() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/a.png", "HTTP://v3.fal.media/a.png", "http://127.0.0.1/",
        "ftp://v3.fal.media/a.png", "file:///etc/passwd", "file://v3.fal.media/etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=", "javascript:alert(1)", "gopher://v3.fal.media/",
        "ws://v3.fal.media/", "wss://v3.fal.media/", "unix:///run/docker.sock", "blob:https://v3.fal.media/1",
    ],
)  # fmt: skip
def test_only_https_is_spoken(url: str) -> None:
    direct = world()
    direct.refuses(url)
    behind = world(answer=redirecting(url))
    behind.refuses("https://v3.fal.media/a.png")
    assert direct.hosts() == [] and behind.hosts() == [PUBLIC]


def test_a_name_in_another_script_is_looked_up_as_it_is_sent() -> None:
    """Else the address of one name would be asked about another: faß.de isn't fass.de."""
    there = world({"xn--fa-hia.example": [PUBLIC]})
    assert there.get("https://faß.example/a.png") == PNG
    assert_pinned(there.reached[0], PUBLIC, "xn--fa-hia.example")


# -- redirects -----------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "address", "host"),
    [
        ("/b.png", PUBLIC, "v3.fal.media"),
        ("b.png?x=1", PUBLIC, "v3.fal.media"),
        ("//cdn.example/b.png", "1.1.1.1", "cdn.example"),
        ("https://cdn.example:8443/b.png", "1.1.1.1", "cdn.example:8443"),
    ],
)
def test_a_redirect_is_checked_and_pinned_like_the_first_address(
    status: int, location: str, address: str, host: str
) -> None:
    moved = world({"cdn.example": ["1.1.1.1"]}, redirecting(location, status=status))
    assert moved.get("https://v3.fal.media/a.png") == PNG
    assert_pinned(moved.reached[0], PUBLIC, "v3.fal.media")
    assert_pinned(moved.reached[1], address, host)
    assert [request.method for request in moved.reached] == ["GET", "GET"]


def test_a_private_address_at_the_end_of_a_chain_is_not_reached() -> None:
    chain = redirecting(*(f"/{n}" for n in range(MAX_HOPS - 1)), "https://10.0.0.1/")
    far = world(answer=chain)
    far.refuses("https://v3.fal.media/a.png")
    assert far.hosts() == [PUBLIC] * MAX_HOPS


@pytest.mark.parametrize(("hops", "arrives"), [(MAX_HOPS, True), (MAX_HOPS + 1, False)])
def test_redirects_are_counted(hops: int, arrives: bool) -> None:
    chain = world(answer=redirecting(*(f"/{n}" for n in range(hops))))
    if arrives:
        assert chain.get("https://v3.fal.media/a.png") == PNG
    else:
        error = chain.refuses("https://v3.fal.media/a.png")
        assert f"more than {MAX_HOPS} redirects" in error.cause
    assert len(chain.reached) == MAX_HOPS + 1


@pytest.mark.parametrize("location", ["https://[", "https://a\x7fb/", "https://v3.fal.media:x/"])
def test_a_malformed_redirect_leads_nowhere(location: str) -> None:
    moved = world(answer=redirecting(location))
    moved.refuses("https://v3.fal.media/a.png", MediaBroken)
    assert moved.hosts() == [PUBLIC]


def test_a_client_that_follows_redirects_itself_isnt_let() -> None:
    async def fetch(answering: World) -> bytes:
        transport = httpx.MockTransport(answering.handle)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
            return await Fetcher(client, resolver=answering.resolve).get("https://v3.fal.media/")

    moved = world(answer=redirecting("https://10.0.0.1/"))
    with pytest.raises(MediaRefused):
        asyncio.run(fetch(moved))
    assert moved.hosts() == [PUBLIC]


# -- hosts of the owner's own --------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a", "https://127.0.0.1:9/a"])
@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.1:9"])
def test_a_host_that_the_owner_configured_may_be_private(url: str, trusted: str) -> None:
    here = world()
    assert here.get(url, trusted=frozenset({trusted})) == PNG
    assert str(here.reached[0].url) == url


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:10/a", "https://127.0.0.2:9/a", "https://localhost:9/a", "ftp://127.0.0.1:9/a"],
)  # fmt: skip
def test_trust_in_one_host_is_trust_in_no_other(url: str) -> None:
    here = world({"localhost": ["127.0.0.1"]})
    with pytest.raises(MediaRefused):
        here.get(url, trusted=frozenset({"127.0.0.1:9"}))
    assert here.hosts() == []


# -- size, time, and what comes back -------------------------------------------


def test_a_body_within_the_limit_is_taken_to_its_last_byte() -> None:
    exact = world(answer=lambda _: httpx.Response(200, stream=Body([b"x" * 500] * 2)))
    assert exact.get("https://v3.fal.media/", max_bytes=1000) == b"x" * 1000


def test_a_size_that_is_declared_is_refused_before_any_of_it_is_read() -> None:
    body = Body([b"x" * 1001])
    headers = {"Content-Length": "1001"}
    declared = world(answer=lambda _: httpx.Response(200, headers=headers, stream=body))
    with pytest.raises(MediaRefused, match="more than"):
        declared.get("https://v3.fal.media/", max_bytes=1000)
    assert body.taken == 0


@pytest.mark.parametrize("declared", [{}, {"Content-Length": "10"}, {"Content-Length": "many"}])
def test_a_size_that_isnt_declared_is_refused_when_it_is_reached(declared: dict[str, str]) -> None:
    endless = Body(b"x" * 100 for _ in iter(int, 1))
    streamed = world(answer=lambda _: httpx.Response(200, headers=declared, stream=endless))
    with pytest.raises(MediaRefused, match="more than"):
        streamed.get("https://v3.fal.media/", max_bytes=1000)
    assert endless.taken == 11


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, identity"])
def test_a_compressed_body_is_refused_before_it_is_unpacked(encoding: str) -> None:
    """It isn't asked for, and a few kilobytes may unpack to gigabytes."""
    body = Body([b"\x1f\x8b"])
    headers = {"Content-Encoding": encoding}
    packed = world(answer=lambda _: httpx.Response(200, headers=headers, stream=body))
    packed.refuses("https://v3.fal.media/")
    assert packed.reached[0].headers["accept-encoding"] == "identity"
    assert body.taken == 0


def test_a_slow_body_is_cut_off_at_the_deadline() -> None:
    body = Body((b"x" for _ in iter(int, 1)), pause=0.05)
    slow = world(answer=lambda _: httpx.Response(200, stream=body))
    with pytest.raises(MediaBroken, match=r"not finished in 0\.3 s"):
        slow.get("https://v3.fal.media/", seconds=0.3)
    assert 1 <= body.taken < 10


def test_a_slow_name_counts_towards_the_deadline() -> None:
    async def slow(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(60)
        return [PUBLIC]

    waiting = world()
    with pytest.raises(MediaBroken, match="not finished"):
        waiting.get("https://v3.fal.media/", seconds=0.2, resolver=slow)
    assert waiting.hosts() == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, MediaExpired), (404, MediaExpired), (410, MediaExpired), (401, MediaBroken),
     (206, MediaBroken), (204, MediaBroken), (304, MediaBroken), (302, MediaBroken),
     (500, MediaBroken), (503, MediaBroken)],
)  # fmt: skip
def test_any_other_answer_than_200_is_an_error(status: int, kind: type[MediaError]) -> None:
    world(answer=lambda _: httpx.Response(status)).refuses("https://v3.fal.media/", kind)


@pytest.mark.parametrize(
    "fault",
    [httpx.ConnectError("no"), httpx.ReadError("no"), httpx.RemoteProtocolError("no"),
     httpx.ReadTimeout("no"), httpx.PoolTimeout("no")],
)  # fmt: skip
def test_a_broken_connection_is_a_broken_image(fault: httpx.HTTPError) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise fault

    error = world(answer=fail).refuses("https://v3.fal.media/", MediaBroken)
    assert type(fault).__name__ in error.cause


def test_the_systems_own_resolver_gives_every_address() -> None:
    assert asyncio.run(resolve("127.0.0.1", 443)) == ["127.0.0.1"]
    assert asyncio.run(resolve("2130706433", 443)) == ["127.0.0.1"]
    assert asyncio.run(resolve("::1", 443)) == ["::1"]


# -- behind a proxy ------------------------------------------------------------


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.mark.usefixtures("proxied")
def test_a_proxy_is_left_to_find_the_name() -> None:
    there = world()
    assert there.get("https://v3.fal.media/a.png") == PNG
    assert there.asked == [] and there.hosts() == ["v3.fal.media"]


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "[::1]", "[64:ff9b::7f00:1]",
     "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0177.0.1", "127.1", "0", "127.0.0.1.",
     "localhost", "LOCALHOST", "localhost.", "a.localhost", "a.localhost.", "printer.local",
     "metadata.google.internal", "metadata.google.internal."],
)  # fmt: skip
def test_a_proxy_isnt_asked_for_a_private_name(host: str) -> None:
    direct = world()
    direct.refuses(f"https://{host}/a.png")
    behind = world(answer=redirecting(f"https://{host}/a.png"))
    behind.refuses("https://v3.fal.media/a.png")
    assert direct.hosts() == [] and behind.hosts() == ["v3.fal.media"]


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize(
    "exception",
    ["corp.example", ".corp.example", "*.corp.example", "CORP.example", "x, corp.example ,y",
     "wiki.corp.example", "https://corp.example", "all://*corp.example", "corp.example:443", "*"],
)  # fmt: skip
def test_a_host_that_bypasses_the_proxy_is_checked_here(
    monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    """httpx connects to it directly, so nobody else would check where that leads."""
    monkeypatch.setenv("NO_PROXY", exception)
    inside = world({"wiki.corp.example": ["10.0.0.7"]})
    assert "public internet" in inside.refuses("https://wiki.corp.example/a.png").cause
    assert inside.asked == ["wiki.corp.example"] and inside.hosts() == []


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("exception", ["", " , ", "corp.example", "media", "al.media"])
def test_exceptions_of_other_hosts_change_nothing(
    monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    monkeypatch.setenv("NO_PROXY", exception)
    there = world()
    assert there.get("https://v3.fal.media/a.png") == PNG
    assert (there.asked == []) == (exception != "media")
