"""HashiCorp Vault's transit engine as its documentation has it, over HTTP: for tests of those who speak to it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FIELDS = {  # what each call takes, and of that what it must have
    "encrypt": ({"plaintext", "context", "associated_data", "key_version", "nonce"}, {"plaintext"}),
    "decrypt": ({"ciphertext", "context", "associated_data", "nonce"}, {"ciphertext"}),
    "rewrap": ({"ciphertext", "context", "key_version", "nonce"}, {"ciphertext"}),
}


class Fault(Exception):
    """An answer other than 200: its status and the texts in `errors`."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status)
        self.status, self.errors = status, list(errors)


@dataclass
class Key:
    """One named key: versions from 1, derived or not."""

    derived: bool = True
    versions: list[bytes] = field(default_factory=lambda: [os.urandom(32)])
    min_decryption_version: int = 1


@dataclass
class Vault:
    """The server's state. `status` makes every call fail with it, `denied` are keys that the token may not use."""

    address: str = ""
    token: str = "s.test-token"
    namespace: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    status: int = 0
    calls: list[str] = field(default_factory=list)
    fail_next: int = 0  # so many calls answer 503, then all is well

    def answer(self, path: str, headers: Any, body: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a call; raises Fault."""
        parts = path.strip("/").split("/")
        self.calls.append(path)
        if self.fail_next:
            self.fail_next -= 1
            raise Fault(503, "Vault is sealed")
        if self.status:
            raise Fault(self.status, "Vault is sealed" if self.status == 503 else "internal error")
        if headers.get("X-Vault-Request") != "true":
            raise Fault(400, "missing 'X-Vault-Request' header")
        if headers.get("X-Vault-Namespace", "") != self.namespace or parts[:2] != ["v1", "transit"]:
            raise Fault(404, f'no handler for route "{path}". route entry not found.')
        name = parts[-2] if parts[-1] == "rotate" else parts[-1]
        if headers.get("X-Vault-Token") != self.token or name in self.denied:
            raise Fault(403, "1 error occurred:\n\t* permission denied\n\n")
        if name not in self.keys:
            raise Fault(400, "encryption key not found")
        return self._call(parts[2], self.keys[name], body, is_rotate=parts[-1] == "rotate")

    def _call(self, verb: str, key: Key, body: dict[str, Any], *, is_rotate: bool) -> dict[str, Any]:
        if verb == "keys" and is_rotate:
            key.versions.append(os.urandom(32))
            return {"latest_version": len(key.versions)}
        if verb not in FIELDS:
            raise Fault(404, "unsupported path")
        allowed, needed = FIELDS[verb]
        if not needed <= set(body) <= allowed:
            raise Fault(400, f"missing or unknown fields: {sorted(set(body) ^ needed)}")
        context = _decoded(body.get("context", ""), "context")
        if key.derived and not context:
            raise Fault(400, "missing 'context' for key derivation; the key was created using a derived key")
        if verb == "encrypt":
            return self._encrypt(key, _decoded(body["plaintext"], "plaintext"), context)
        plain = self._decrypt(key, body["ciphertext"], context)
        if verb == "rewrap":
            return self._encrypt(key, plain, context)
        return {"plaintext": base64.b64encode(plain).decode()}

    def _encrypt(self, key: Key, plain: bytes, context: bytes) -> dict[str, Any]:
        version, nonce = len(key.versions), os.urandom(12)
        sealed = nonce + AESGCM(_used(key, version, context)).encrypt(nonce, plain, b"")
        text = f"vault:v{version}:{base64.b64encode(sealed).decode()}"
        return {"ciphertext": text, "key_version": version}

    def _decrypt(self, key: Key, text: str, context: bytes) -> bytes:
        words = text.split(":")
        if (
            len(words) != 3
            or words[0] != "vault"
            or not words[1].startswith("v")
            or not words[1][1:].isdecimal()
        ):
            raise Fault(400, "invalid ciphertext: no prefix")
        version = int(words[1][1:])
        if version > len(key.versions):
            raise Fault(400, "invalid ciphertext: version is too new")
        if version < key.min_decryption_version:
            raise Fault(400, "ciphertext or signature version is disallowed by policy (too old)")
        sealed = _decoded(words[2], "ciphertext")
        try:
            return AESGCM(_used(key, version, context)).decrypt(sealed[:12], sealed[12:], b"")
        except (InvalidTag, ValueError):
            raise Fault(400, "cipher: message authentication failed") from None


def _used(key: Key, version: int, context: bytes) -> bytes:
    """A derived key depends on the context; any other ignores it."""
    own = key.versions[version - 1]
    return HKDF(hashes.SHA256(), 32, None, context).derive(own) if key.derived else own


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault(400, f"failed to base64-decode {name}") from None


@contextmanager
def serving() -> Iterator[Vault]:
    """A server on a free port of this machine; the Vault's `address` is URL/MOUNT."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            raw = self.rfile.read(length)
            try:
                data = vault.answer(self.path, self.headers, json.loads(raw or b"{}"))
                self._say(200, {"request_id": "test", "lease_id": "", "renewable": False, "data": data})
            except Fault as fault:
                self._say(fault.status, {"errors": fault.errors})

        def _say(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    vault.address = f"http://127.0.0.1:{server.server_address[1]}/transit"
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
