"""A throwaway certificate authority, so that clients can keep `https://` to a stand-in."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import trustme

SniCallback = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]


def write_authority(directory: Path) -> tuple[trustme.CA, Path]:
    """Make an authority; its PEM file is what `SSL_CERT_FILE` should name."""
    authority = trustme.CA()
    path = directory / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return authority, path


def server_context(
    authority: trustme.CA, names: Sequence[str], on_hello: SniCallback
) -> ssl.SSLContext:
    """A server-side context for the names (hosts or IP addresses).

    `on_hello` sees every client hello before the handshake; a TLS alert code that it returns
    ends the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    context.sni_callback = on_hello
    return context
