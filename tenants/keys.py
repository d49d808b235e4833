"""API keys as text: `ck_live_`, 40 base62 characters and a CRC-32, kept only as an HMAC under the pepper."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from typing import Final

from django.conf import settings

from saas.lib.db import ALPHABET, base62

PREFIX: Final = "ck_live_"
BODY_CHARACTERS: Final = 40
CHECK_CHARACTERS: Final = 6
SCOPES: Final = ("files", "train", "predict", "models", "privacy", "usage", "predictions", "all")
OWNERS_SCOPES: Final = (
    "predictions",
    "all",
)  # only owners make such keys: the prediction log is theirs to read


def make_key() -> str:
    """A new API key: 238 random bits, and a checksum that finds typing errors without a database."""
    body = PREFIX + base62(BODY_CHARACTERS)
    return body + checksum(body)


def checksum(body: str) -> str:
    """CRC-32 of the key without its checksum, as six base62 characters."""
    value = zlib.crc32(body.encode())
    characters = ""
    for _ in range(CHECK_CHARACTERS):
        value, digit = divmod(value, len(ALPHABET))
        characters = ALPHABET[digit] + characters
    return characters


def is_well_formed(raw: str) -> bool:
    """Whether the text has the form and checksum of a key; says nothing about whether it exists."""
    if (
        len(raw) != len(PREFIX) + BODY_CHARACTERS + CHECK_CHARACTERS
        or not raw.isascii()
        or not raw.startswith(PREFIX)
    ):
        return False
    return hmac.compare_digest(checksum(raw[:-CHECK_CHARACTERS]), raw[-CHECK_CHARACTERS:])


def digest(raw: str) -> str:
    """What is stored of a key: HMAC-SHA256 under settings.KEY_PEPPER, in hex."""
    return hmac.new(settings.KEY_PEPPER.encode(), raw.encode(), hashlib.sha256).hexdigest()
