"""Mutual TLS between gateway and engine: version 1.3 only, both sides show a certificate of the same authority."""

from __future__ import annotations

import ssl
from pathlib import Path


class BadCertificates(Exception):
    """The certificate, key or authority cannot be used; the message says which and why."""


def server_credentials(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    """For an engine that listens; raises BadCertificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, cert, key, ca)


def client_credentials(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    """For a gateway; the engine's certificate must name its host. Raises BadCertificates."""
    return _filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key, ca)


def _filled(context: ssl.SSLContext, cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if cert is None or key is None or ca is None:
        raise BadCertificates(
            "An engine on another host needs a certificate, its key and the authority of the other side."
        )
    try:
        context.load_cert_chain(cert, key)
        context.load_verify_locations(ca)
    except OSError as error:
        raise BadCertificates(f"{cert}, {key} or {ca} cannot be used: {error}.") from error
    return context
