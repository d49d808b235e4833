"""Ids of recommendations that carry what later events need, sealed with a key of the model's: nothing is stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "rec-"
PLACES = 50  # of a list, of which the id knows which item was there
_FORMAT = 1
_HEAD = struct.Struct(">B16s16sIH8s")  # format, version, endpoint, seconds, items, nonce
_TAG_BYTES, _MAC_BYTES = 2, 16
_LONGEST = 400  # characters of any id


class BrokenId(Exception):
    """This is no recommendation's id, or not one that this model gave."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What an id says: which version answered under which endpoint ("" for its own name), when, and how many items."""

    version: str
    endpoint: str
    at: int  # seconds since 1970
    count: int
    nonce: bytes
    _tags: bytes
    _key: bytes

    def position(self, item: str) -> int:
        """Where the item stood, from 1; 0 for one behind PLACES. Raises BrokenId for one that was not there."""
        tag = _tag(self._key, self.nonce, item)
        for place in range(0, len(self._tags), _TAG_BYTES):
            if self._tags[place : place + _TAG_BYTES] == tag:
                return place // _TAG_BYTES + 1
        if self.count > PLACES:
            return 0
        raise BrokenId

    def digest(self, *parts: str) -> bytes:
        """16 bytes that stand for one thing that happened to this list, and tell nobody what it was."""
        return _mac(self._key, b"event", self.nonce, *(part.encode() for part in parts))


def issue(key: bytes, *, version: str, endpoint: str, items: Sequence[str], at: int) -> str:
    """The id of a list of items; `key` is `targets.id_key` of the version that made it."""
    own = _own_key(key)
    nonce = secrets.token_bytes(8)
    answered_by = uuid.UUID(endpoint).bytes if endpoint else bytes(16)
    head = _HEAD.pack(_FORMAT, uuid.UUID(version).bytes, answered_by, at, len(items), nonce)
    body = head + b"".join(_tag(own, nonce, item) for item in items[:PLACES])
    return PREFIX + base64.urlsafe_b64encode(body + _mac(own, b"id", body)).decode().rstrip("=")


def version_of(text: str) -> str:
    """The version that an id names, before anything of it is believed; raises BrokenId."""
    return str(uuid.UUID(bytes=_HEAD.unpack_from(_decoded(text))[1]))


def verify(text: str, key: bytes) -> Recommendation:
    """What an id says, if the owner of `key` gave it; raises BrokenId."""
    raw, own = _decoded(text), _own_key(key)
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(own, b"id", body)):
        raise BrokenId
    _, version, endpoint, at, count, nonce = _HEAD.unpack_from(body)
    named = str(uuid.UUID(bytes=endpoint)) if any(endpoint) else ""
    return Recommendation(str(uuid.UUID(bytes=version)), named, at, count, nonce, body[_HEAD.size :], own)


def _decoded(text: str) -> bytes:
    if not text.startswith(PREFIX) or len(text) > _LONGEST:
        raise BrokenId
    plain = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BrokenId from error
    if len(raw) < _HEAD.size + _MAC_BYTES or raw[0] != _FORMAT:
        raise BrokenId
    return raw


def _own_key(key: bytes) -> bytes:
    """A key for ids alone; it is gone with the model's."""
    return hmac.digest(key, b"cloister recommendation ids", "sha256")


def _tag(own: bytes, nonce: bytes, item: str) -> bytes:
    return hmac.digest(own, b"item" + nonce + item.encode(), hashlib.sha256)[:_TAG_BYTES]


def _mac(own: bytes, *parts: bytes) -> bytes:
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(own, framed, hashlib.sha256)[:_MAC_BYTES]
