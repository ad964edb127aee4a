"""Fetching an address that somebody else chose: an answer's image, a user's link.

`https` only, every hop's host resolved here and refused unless all its
addresses are global, the connection pinned to the address that was checked,
bytes and seconds capped. Behind an HTTPS proxy the proxy resolves names, so
only the name itself can be checked there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.request import getproxies

import httpx

from generation.errors import MediaBroken, MediaExpired, MediaRefused

MAX_HOPS: Final = 5
PLAIN: Final = {"Accept-Encoding": "identity"}
Resolver = Callable[[str, int], Awaitable[list[str]]]

# What is handed out to hosts of the public internet (IANA); all else of IPv6 is special.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Parts of it that Python calls global: two tunnels to any IPv4 address, and documentation.
_NOT_GLOBAL: Final = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "3fff::/20")))


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, as text."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(info[4][0]) for info in infos})


def is_global(address: str) -> bool:
    """Whether an address is on the public internet, tunnels to private ones excluded."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_global(str(ip.ipv4_mapped))
        if ip not in _UNICAST or any(ip in net for net in _NOT_GLOBAL):
            return False
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True)
class Fetcher:
    """Gets bytes from checked addresses.

    `trusted` are hosts (`name` or `name:port`) that the owner configured; they
    may be private and speak plain http. `max_bytes` and `seconds` bound one fetch.
    """

    client: httpx.AsyncClient
    trusted: frozenset[str] = frozenset()
    max_bytes: int = 64 * 2**20
    seconds: float = 60.0
    resolver: Resolver = field(default=resolve)

    async def get(self, url: str) -> bytes:
        """The whole body behind `url`.

        Raises:
            MediaRefused: a forbidden address, or too many bytes.
            MediaExpired: the address is gone (403, 404, 410).
            MediaBroken: it did not arrive whole or in time.
        """
        async with self.open(url) as response:
            return await self._read(response)

    @asynccontextmanager
    async def open(
        self, url: str, headers: Mapping[str, str] = PLAIN
    ) -> AsyncIterator[httpx.Response]:
        """The answer behind all redirects, whatever its status, its body still to be read.

        `headers` go to every hop. Errors while the body is read are translated
        as well; counting its bytes is up to the reader.

        Raises:
            MediaRefused: a forbidden address.
            MediaBroken: it did not arrive whole or in time.
        """
        try:
            async with asyncio.timeout(self.seconds):
                response = await self._follow(httpx.URL(url), headers)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            raise MediaBroken(reason=f"not finished in {self.seconds:g} s") from exc
        except httpx.InvalidURL as exc:
            raise MediaRefused(reason="its address can't be read") from exc
        except httpx.HTTPError as exc:
            raise MediaBroken(reason=type(exc).__name__) from exc

    async def _follow(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        for _hop in range(MAX_HOPS + 1):
            request = await self._request(url, headers)
            response = await self.client.send(request, stream=True, follow_redirects=False)
            if not response.has_redirect_location:
                return response
            await response.aclose()
            url = url.join(response.headers["location"])
        raise MediaRefused(reason=f"more than {MAX_HOPS} redirects")

    async def _request(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Request:
        """A request to a checked address: name in Host and SNI, address in the URL."""
        if {url.host, url.netloc.decode()} & self.trusted and url.scheme in ("http", "https"):
            return self.client.build_request("GET", url, headers=headers)
        odd = url.userinfo or (url.port or 0) > 65535
        if url.scheme != "https" or not url.host or odd:
            raise MediaRefused(reason="its address is not a plain https address")
        host = url.raw_host.decode("ascii")
        if _goes_through_a_proxy(host):
            _refuse_private_name(host)
            return self.client.build_request("GET", url, headers=headers)
        address = await self._checked_address(host, url.port or 443)
        return self.client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={**headers, "Host": url.netloc.decode()},
            extensions={"sni_hostname": host},
        )

    async def _checked_address(self, host: str, port: int) -> str:
        try:
            addresses = await self.resolver(host, port)
        except (OSError, UnicodeError) as exc:  # no such name, or none that DNS can carry
            raise MediaBroken(reason=f"{host} can't be found") from exc
        if not addresses or not all(is_global(address) for address in addresses):
            raise MediaRefused(reason=f"{host} is not on the public internet")
        return addresses[0]

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code in (403, 404, 410):
            raise MediaExpired()
        if response.status_code != 200:
            raise MediaBroken(reason=f"HTTP {response.status_code}")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":  # not asked for, and a few bytes may unpack to gigabytes
            raise MediaRefused(reason=f"it is compressed ({encoding})")
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            raise self._too_large()
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self.max_bytes:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> MediaRefused:
        return MediaRefused(reason=f"more than {self.max_bytes // 2**20} MiB")


def _goes_through_a_proxy(host: str) -> bool:
    """Whether httpx leaves this host to a proxy; in doubt not, and it is resolved here."""
    proxies = getproxies()
    exceptions = [entry.strip() for entry in proxies.get("no", "").split(",")]
    return "https" in proxies and not any(_excepts(entry, host) for entry in exceptions)


def _excepts(entry: str, host: str) -> bool:
    """Whether an entry of NO_PROXY may mean the host: corp, .corp, *.corp, https://corp:8443."""
    name = entry.lower().rpartition("://")[2].partition(":")[0].lstrip("*.")
    return entry == "*" or (name != "" and f".{host.rstrip('.')}".endswith(f".{name}"))


def _refuse_private_name(host: str) -> None:
    """The name itself, which is all that can be checked where a proxy resolves it."""
    name = host.rstrip(".")
    try:
        # Numbers in any spelling: 2130706433, 0x7f.1 and 0177.0.0.1 are addresses too.
        allowed = is_global(name if ":" in name else socket.inet_ntoa(socket.inet_aton(name)))
    except OSError:
        allowed = name != "localhost" and not name.endswith((".localhost", ".local", ".internal"))
    if not allowed:
        raise MediaRefused(reason=f"{host} is not on the public internet")
