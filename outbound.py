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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.request import getproxies

import httpx

from generation.errors import MediaBroken, MediaExpired, MediaRefused

MAX_HOPS: Final = 5
Resolver = Callable[[str, int], Awaitable[list[str]]]

# Ranges that Python calls global although they lead into private networks.
_TUNNELS: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("2002::/16", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32")
)


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, as text."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(info[4][0]) for info in infos})


def is_global(address: str) -> bool:
    """Whether an address is on the public internet, tunnels to private ones excluded."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip.version == net.version and ip in net for net in _TUNNELS):
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
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(httpx.URL(url))
        except TimeoutError as exc:
            raise MediaBroken(reason=f"not finished in {self.seconds:g} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise MediaBroken(reason=type(exc).__name__) from exc

    async def _follow(self, url: httpx.URL) -> bytes:
        for _hop in range(MAX_HOPS):
            request = await self._request(url)
            response = await self.client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return await self._read(response)
                url = url.join(response.headers["location"])
            finally:
                await response.aclose()
        raise MediaRefused(reason=f"more than {MAX_HOPS} redirects")

    async def _request(self, url: httpx.URL) -> httpx.Request:
        """A request to a checked address: name in Host and SNI, address in the URL."""
        if {url.host, url.netloc.decode()} & self.trusted and url.scheme in ("http", "https"):
            return self.client.build_request("GET", url)
        if url.scheme != "https" or not url.host or url.userinfo:
            raise MediaRefused(reason="its address is not a plain https address")
        if "https" in getproxies():
            _refuse_private_literal(url.host)
            return self.client.build_request("GET", url)
        address = await self._checked_address(url)
        return self.client.build_request(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode()},
            extensions={"sni_hostname": url.host},
        )

    async def _checked_address(self, url: httpx.URL) -> str:
        try:
            addresses = await self.resolver(url.host, url.port or 443)
        except OSError as exc:
            raise MediaBroken(reason=f"{url.host} can't be found") from exc
        if not addresses or not all(is_global(address) for address in addresses):
            raise MediaRefused(reason=f"{url.host} is not on the public internet")
        return addresses[0]

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code in (403, 404, 410):
            raise MediaExpired()
        if response.status_code != 200:
            raise MediaBroken(reason=f"HTTP {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self.max_bytes:
                raise MediaRefused(reason=f"more than {self.max_bytes // 2**20} MiB")
        return bytes(body)


def _refuse_private_literal(host: str) -> None:
    try:
        allowed = is_global(host)
    except ValueError:
        allowed = host != "localhost" and not host.endswith((".localhost", ".local", ".internal"))
    if not allowed:
        raise MediaRefused(reason=f"{host} is not on the public internet")
