"""Identifiers: sortable uuids for rows, prefixed base62 ids for the outside."""

from __future__ import annotations

import os
import time
import uuid

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FAIR = 256 - 256 % len(ALPHABET)  # bytes from here on would make some characters likelier than others
_CHARACTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_UNFAIR = bytes(range(_FAIR, 256))


def base62(length: int) -> str:
    """`length` random base62 characters from the operating system's generator."""
    found = b""
    while len(found) < length:
        found += os.urandom(2 * length).translate(_CHARACTERS, _UNFAIR)
    return found[:length].decode()


def public_id(prefix: str) -> str:
    """The id the outside sees: prefix plus 24 base62 characters (142 bits)."""
    return f"{prefix}{base62(24)}"


def uuid7() -> uuid.UUID:
    """A version 7 uuid (RFC 9562): milliseconds since 1970, then random bits; rows sort by creation."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)
