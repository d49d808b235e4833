"""Receipts: an in-toto statement about one training run, signed with Ed25519 in a DSSE envelope. Knows no Django."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from modeling.core import accounting
from modeling.core.canonical import decode, encode
from modeling.core.types import CoreError, Mechanism

FORMAT = 1
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = (
    "https://cloister.example/private-training/v1"  # a name, not an address: .example never resolves
)
ARTEFACT, CARD = "artefact.safetensors", "card.json"
PACKAGES = ("saas", "tenants", "billing", "modeling")


class BrokenReceipt(CoreError):
    """The receipt is not one that was signed, or does not say what can be true; the message says how."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="broken_receipt")


@dataclass(frozen=True)
class Signed:
    """An opened envelope: what was stated, by which key, and the key's raw 32 bytes."""

    statement: dict[str, Any]
    key_id: str
    public_key: bytes

    @property
    def predicate(self) -> dict[str, Any]:
        """The statement about the run."""
        found: dict[str, Any] = self.statement["predicate"]
        return found

    def subject(self, name: str) -> str:
        """The SHA-256 of a named subject, as hex; raises BrokenReceipt."""
        for one in self.statement["subject"]:
            if one["name"] == name:
                return str(one["digest"]["sha256"])
        raise BrokenReceipt(f"The receipt says nothing about {name}.")


def new_key() -> bytes:
    """A fresh signing key as PEM (PKCS 8)."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """The signing key of a PEM file; raises ValueError when it is no Ed25519 key."""
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("A receipt key is an Ed25519 key in PEM form.")
    return key


def public_key(text: bytes) -> bytes:
    """The raw 32 bytes of a public key file: PEM, or base64 as `public_key` of a receipt; raises ValueError."""
    if b"BEGIN" in text:
        key = load_pem_public_key(text)
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 key")
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    raw = base64.b64decode(text.strip(), validate=True)
    if len(raw) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return raw


def public_part(key: Ed25519PrivateKey) -> bytes:
    """The raw public key of a signing key."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_pem(raw: bytes) -> str:
    """A raw public key as PEM."""
    key = Ed25519PublicKey.from_public_bytes(raw)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_id(raw: bytes) -> str:
    """A public key's name: SHA-256 over its raw bytes, as hex."""
    return hashlib.sha256(raw).hexdigest()


def statement(
    subjects: Mapping[str, str], predicate: Mapping[str, Any], *, predicate_type: str = PREDICATE_TYPE
) -> dict[str, Any]:
    """An in-toto Statement v1 about files by name and SHA-256."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(content: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope around a statement. Its payload holds no floats, so that a reader gets the very numbers."""
    _refuse_floats(content)
    payload, raw = encode(content), public_part(key)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": key_id(raw),
                "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode(),
                "public_key": base64.b64encode(raw).decode(),
            }
        ],
    }


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("a receipt writes numbers exactly: floats as hexadecimal text")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        _refuse_floats(one)


def open_envelope(
    envelope: Any, *, pinned: bytes | None = None, predicate_type: str = PREDICATE_TYPE
) -> Signed:
    """Check an envelope's form and signature, against the pinned raw key when one is given; raises BrokenReceipt."""
    _require_keys(envelope, {"payload", "payloadType", "signatures"}, "The envelope")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise BrokenReceipt("The payload is not an in-toto statement.")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise BrokenReceipt("A receipt has exactly one signature.")
    signature = signatures[0]
    _require_keys(signature, {"keyid", "sig", "public_key"}, "The signature")
    raw = _bytes(signature["public_key"], "public key")
    if len(raw) != 32 or signature["keyid"] != key_id(raw):
        raise BrokenReceipt("The key's name does not belong to the key.")
    if pinned is not None and raw != pinned:
        raise BrokenReceipt("The receipt was signed by another key than the one you trust.")
    payload = _bytes(envelope["payload"], "payload")
    try:
        signed = pae(PAYLOAD_TYPE, payload)
        Ed25519PublicKey.from_public_bytes(raw).verify(_bytes(signature["sig"], "signature"), signed)
    except (InvalidSignature, ValueError):
        raise BrokenReceipt("The signature does not belong to this content: something was changed.") from None
    return Signed(_content(payload, predicate_type), str(signature["keyid"]), raw)


def _content(payload: bytes, predicate_type: str) -> dict[str, Any]:
    try:
        found = decode(payload)
    except (ValueError, RecursionError):
        raise BrokenReceipt("The payload is not JSON.") from None
    _require_keys(found, {"_type", "subject", "predicateType", "predicate"}, "The statement")
    if found["_type"] != STATEMENT_TYPE or found["predicateType"] != predicate_type:
        raise BrokenReceipt("The statement is not about what was expected, such as a training run of ours.")
    return dict(found)


def _require_keys(value: Any, keys: set[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != keys:
        raise BrokenReceipt(f"{what} does not have the fields of a receipt.")


def _bytes(text: Any, what: str) -> bytes:
    """Strict base64: exactly one way to write the same bytes."""
    try:
        raw = base64.b64decode(text.encode(), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise BrokenReceipt(f"The {what} is not base64.") from None
    if base64.b64encode(raw).decode() != text:
        raise BrokenReceipt(f"The {what} is not base64.")
    return raw


def mechanism_record(run: Mechanism, *, planned: int) -> dict[str, str | int]:
    """A mechanism as a receipt names it: exact, with the compositions that ran and those that were planned."""
    return {**accounting.to_record(run), "planned": planned}


def source_digest(root: Path, packages: Sequence[str] = PACKAGES) -> dict[str, str | int]:
    """SHA-256 over the names and contents of all Python files of our packages under `root`."""
    files = sorted(path for package in packages for path in (root / package).rglob("*.py") if path.is_file())
    lines = [
        f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in files
    ]
    return {"sha256": hashlib.sha256("".join(lines).encode()).hexdigest(), "files": len(files)}
