"""An engine on another host: mutual TLS 1.3 with one authority, and nothing else gets an answer."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modeling.serving import wire
from modeling.serving.addresses import ALL, TlsAddress
from modeling.serving.client import EngineClient
from modeling.serving.engines import Engines
from modeling.serving.tls import BadCertificates, client_credentials
from modeling.serving.wire import EngineRefusal
from saas.processes import free_port, wait_until
from tests.serving.made import ROOT, Artifacts

pytestmark = pytest.mark.asyncio


@dataclass(frozen=True)
class Certificate:
    """PEM files of one party, and who vouches for it."""

    cert: Path
    key: Path
    ca: Path


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = self._sign(name, self._key.public_key(), is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, name: str, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            place = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([place]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str) -> Certificate:
        """A certificate of its own for a party."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        cert_file.write_bytes(self._sign(name, key.public_key()).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Certificate(cert_file, key_file, self.file)


@dataclass(frozen=True)
class Remote:
    """An engine that listens on TLS only, and the authority that both sides trust."""

    place: TlsAddress
    authority: Authority


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority")
    mine = authority.issue("engine")
    place = TlsAddress("127.0.0.1", free_port())
    command = [sys.executable, "-m", "modeling.serving.engine", "--listen", str(place)]
    command += ["--cert", str(mine.cert), "--key", str(mine.key), "--ca", str(mine.ca)]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--models", str(folder)], env=environment, cwd=folder)

    async def greets() -> bool:
        return await EngineClient(place, credentials=trusted(authority.issue("probe"))).greet(2.0)

    try:
        assert wait_until(lambda: asyncio.run(greets()), seconds=30, pause=0.1)
        yield Remote(place, authority)
    finally:
        process.terminate()
        assert process.wait(10) == 0


def trusted(mine: Certificate) -> ssl.SSLContext:
    return client_credentials(mine.cert, mine.key, mine.ca)


async def outcome(place: TlsAddress, credentials: ssl.SSLContext | None) -> str:
    """What a gateway with these credentials gets: `ok` or the refusal's code."""
    client = EngineClient(place, credentials=credentials)
    try:
        await client.ask("health", tenant="", seconds=5.0)
    except EngineRefusal as refusal:
        return refusal.code
    finally:
        await client.close()
    return "ok"


async def test_both_certificates_of_one_authority(remote: Remote, tmp_path: Path) -> None:
    credentials = trusted(remote.authority.issue("gateway"))
    engines = Engines({ALL: (remote.place,)}, credentials=credentials, patience=1.0)
    made = Artifacts(tmp_path).items()
    answer = await engines.ask(
        "recommend", tenant="acme", seconds=10.0, base="minilm-l6", artifact=made.body, history=[], k=4
    )
    assert len(answer["items"]) == 4
    assert await engines.missing() == []
    await engines.close()


async def test_a_stranger_gets_nothing(remote: Remote, tmp_path: Path) -> None:
    mine = remote.authority.issue("gateway")
    strangers = Authority(tmp_path, "strangers")
    theirs = strangers.issue("stranger")
    assert await outcome(remote.place, trusted(mine)) == "ok"
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(mine.ca)
    foreign = trusted(Certificate(theirs.cert, theirs.key, mine.ca))
    wary = trusted(Certificate(mine.cert, mine.key, strangers.file))
    old = trusted(mine)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for credentials in (
        bare,
        foreign,
        wary,
        old,
        None,
    ):  # no certificate, wrong one, wrong engine, TLS 1.2, none
        assert await outcome(remote.place, credentials) == "unavailable"


async def test_the_engine_must_be_who_it_says(remote: Remote) -> None:
    credentials = trusted(remote.authority.issue("gateway"))
    assert await outcome(TlsAddress("localhost", remote.place.port), credentials) == "unavailable"


async def test_plain_tcp_is_not_answered(remote: Remote) -> None:
    reader, writer = await asyncio.open_connection(remote.place.host, remote.place.port)
    writer.write(wire.hello())
    try:
        received = await asyncio.wait_for(reader.read(65_536), 10)
    except ConnectionResetError:
        received = b""
    assert wire.hello() not in received
    writer.close()


async def test_there_is_no_way_to_listen_without_certificates(tmp_path: Path) -> None:
    for words in (["--listen", "tcp://127.0.0.1:7300"], ["--listen", "tls://127.0.0.1:7300"]):
        command = ["-m", "modeling.serving.engine", "--models", str(tmp_path), *words]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode != 0
        assert b"Traceback" not in said
    with pytest.raises(BadCertificates):
        client_credentials(None, None, None)
