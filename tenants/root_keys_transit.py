"""A root key in HashiCorp Vault's transit engine: encrypt, decrypt, rewrap and rotate with a derivation context."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import time
from pathlib import Path
from typing import Any, Final

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

from tenants.root_keys import Bound, KeyDestroyed, KeyRefused, KeysUnreachable, Wrapped

ADDRESS: Final = re.compile(r"(https?://[^/?#\s]+)/([A-Za-z0-9_./-]+)/([A-Za-z0-9_-]{1,64})")
_PATIENCE: Final = httpx.Timeout(2.0, connect=1.0)
_PAUSE_SECONDS: Final = 0.2
_MOST_BYTES: Final = 64 << 10
# What Vault says (status 400) when a ciphertext was not made by this key and context.
_NOT_OURS: Final = ("message authentication failed", "invalid ciphertext", "unable to decrypt")


class TransitKey:
    """One key made with `derived=true`, so that its place is part of every ciphertext.

    `address` is URL/MOUNT/KEY; the token is read from its file before each call, since whoever renews it writes there.
    """

    def __init__(self, address: str, name: str = "") -> None:
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise ValueError("Name the key as https://HOST:PORT/MOUNT/KEY.")
        self._base, self._key = f"{found[1]}/v1/{found[2]}", found[3]
        self._address, self._name = address, name
        self._trusted = ssl.create_default_context(cafile=settings.VAULT_CA or None)

    @property
    def id(self) -> str:
        """A digest of the address."""
        return hashlib.sha256(f"cloister/vault/v1|{self._address}".encode()).hexdigest()[:32]

    @property
    def label(self) -> str:
        """The key's name; its server's name where a tenant chose among several."""
        return f"Vault {self._name}/{self._key}" if self._name else f"Vault key {self._key}"

    def wrap(self, secret: bytes, bound: Bound) -> Wrapped:
        """Vault's text, such as vault:v1:…, as bytes."""
        body = {"plaintext": _coded(secret), "context": _context(bound)}
        return Wrapped(str(self._ask("encrypt", body)["ciphertext"]).encode(), self.id)

    def unwrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> bytes:
        """What Vault opens under this key and context."""
        body = {"ciphertext": _text(wrapped), "context": _context(bound)}
        return base64.b64decode(self._ask("decrypt", body)["plaintext"])

    def rewrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> Wrapped:
        """Under the newest version; the key in clear never leaves Vault."""
        body = {"ciphertext": _text(wrapped), "context": _context(bound)}
        return Wrapped(str(self._ask("rewrap", body)["ciphertext"]).encode(), self.id)

    def knows(self, root_id: str) -> bool:
        """Vault keeps the versions of a key under one name."""
        return root_id == self.id

    def rotate(self) -> None:
        """A new version, at once."""
        self._post(f"keys/{self._key}/rotate", {})

    def retire(self) -> int:
        """Old versions end in Vault (min_decryption_version): nothing of them lies here."""
        return 0

    def _ask(self, verb: str, body: dict[str, str]) -> dict[str, Any]:
        answer = self._post(f"{verb}/{self._key}", body)
        try:
            data = json.loads(answer)["data"]
        except (ValueError, KeyError, TypeError):
            raise KeysUnreachable from None
        if not isinstance(data, dict):
            raise KeysUnreachable
        return data

    def _post(self, path: str, body: dict[str, str]) -> bytes:
        """One call, and once more when nobody answered or the server says that it cannot now."""
        for is_last in (False, True):
            try:
                answer = httpx.post(
                    f"{self._base}/{path}",
                    json=body,
                    headers=self._headers(),
                    timeout=_PATIENCE,
                    verify=self._trusted,
                    follow_redirects=False,
                )
            except httpx.HTTPError:
                if is_last:
                    raise KeysUnreachable from None
            else:
                if answer.status_code < 400:
                    return answer.content[:_MOST_BYTES]
                if is_last or not (answer.status_code == 429 or answer.status_code >= 500):
                    raise _error(answer)
            time.sleep(_PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _headers(self) -> dict[str, str]:
        ending = (
            f".{self._name}" if self._name else ""
        )  # a tenant's own server never sees the installation's token
        try:
            token = Path(f"{settings.VAULT_TOKEN_FILE}{ending}").read_text().strip()
        except OSError:
            raise KeyRefused(_("The file of the Vault token cannot be read.")) from None
        found = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        return found | {"X-Vault-Namespace": settings.VAULT_NAMESPACE} if settings.VAULT_NAMESPACE else found


def _error(answer: httpx.Response) -> Exception:
    """What an error's status and body mean to us."""
    if answer.status_code == 429 or answer.status_code >= 500:
        return KeysUnreachable()
    try:
        said = " ".join(str(one) for one in json.loads(answer.content[:_MOST_BYTES])["errors"]).lower()
    except (ValueError, KeyError, TypeError):
        said = ""
    if answer.status_code == 400 and any(words in said for words in _NOT_OURS):
        return KeyDestroyed("A wrapped key does not open under this key and place.")
    return KeyRefused(_("Vault refuses the key (status %(status)s).") % {"status": answer.status_code})


def _context(bound: Bound) -> str:
    return _coded(json.dumps(bound.fields, sort_keys=True, separators=(",", ":")).encode())


def _text(wrapped: bytes) -> str:
    try:
        return wrapped.decode("ascii")
    except UnicodeDecodeError:
        raise KeyDestroyed("This is nothing that Vault wrapped.") from None


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()
