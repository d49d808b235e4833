"""Root keys behind one interface: a file, a key in AWS KMS or one in HashiCorp Vault; they wrap tenants' keys."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.utils.translation import gettext as _

from saas.lib.errors import Refusal

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
HEALTH_SECONDS: Final = 10.0


class KeyDestroyed(Exception):
    """The key of this object or tenant was destroyed: the bytes cannot be read again by anyone."""


class WrongRootKey(Exception):
    """None of the root keys at hand is the one that wrapped this tenant's key."""


class KeysAway(Refusal):
    """A key cannot be had now, and may be had later: whatever waits for it is tried again."""


class KeysUnreachable(KeysAway):
    """The service that holds a root key does not answer: nothing is lost, and nothing opens until it does."""

    status = 503
    code = "keys_unreachable"
    kind = "server_error"

    def __init__(self, message: str = "") -> None:
        text = message or _("The key service does not answer. Nothing is lost; please try again in a moment.")
        super().__init__(text, headers={"Retry-After": "5"})


class KeyRefused(KeysAway):
    """The service answers and refuses the key: disabled, deleted, or not for us."""

    status = 503
    code = "key_refused"
    kind = "server_error"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a wrapped tenant key is bound to; generation 0 is the secret that other keys are derived from."""

    tenant_id: uuid.UUID
    generation: int

    @property
    def text(self) -> str:
        """The place as additional data of our own encryption."""
        place = f"cloister/tenant-key/v1|{self.tenant_id}"
        return f"{place}|{self.generation}" if self.generation else place

    @property
    def fields(self) -> dict[str, str]:
        """The place as a key service sees (and logs) it; policies may demand the tenant's reference."""
        return {
            "cloister": "tenant-key",
            "tenant": tenant_reference(self.tenant_id),
            "generation": str(self.generation),
        }


def tenant_reference(tenant_id: uuid.UUID) -> str:
    """The name of a tenant in the context of every call to a key service: 32 hexadecimal digits, always the same."""
    return hashlib.sha256(f"cloister/tenant-reference/v1|{tenant_id}".encode()).hexdigest()[:32]


class Wrapped(NamedTuple):
    """A wrapped key and the id of the root key (version) that wrapped it."""

    content: bytes
    root_id: str


class RootKey(Protocol):
    """A key that wraps others. Every method raises KeysUnreachable and KeyRefused; `unwrap` KeyDestroyed too."""

    @property
    def id(self) -> str:
        """A short name that says nothing about the key; the same for each version of it."""

    @property
    def label(self) -> str:
        """The name that people know the key by."""

    def wrap(self, secret: bytes, bound: Bound) -> Wrapped:
        """Encrypt a key, bound to its place."""

    def unwrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> bytes:
        """The key again; KeyDestroyed when this key or place did not wrap it."""

    def rewrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> Wrapped:
        """The same key under the newest version of this one."""

    def knows(self, root_id: str) -> bool:
        """Whether this key, or an earlier version that is still kept, has that id."""

    def rotate(self) -> None:
        """Make a new version of the key, which wraps from now on; earlier ones still open."""

    def retire(self) -> int:
        """Destroy earlier versions that are kept beside this one; returns how many."""


class FileKey:
    """32 bytes in a file of mode 0600, made once. Rotating keeps the earlier key beside it until it is retired."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def id(self) -> str:
        """The digest of the key in the file now."""
        return file_key_id(self.key())

    @property
    def label(self) -> str:
        """What an operator reads."""
        return f"file {self.file.name}"

    def key(self) -> bytes:
        """The key of this installation; the file appears whole or not at all, also when processes start at once."""
        if not self.file.exists():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._draft(os.urandom(KEY_BYTES))
            try:
                os.link(draft, self.file)
            except FileExistsError:
                pass  # another process was first: its key counts
            finally:
                draft.unlink()
        return _read_private(self.file)

    def wrap(self, secret: bytes, bound: Bound) -> Wrapped:
        """Nonce, then AES-256-GCM."""
        key = self.key()
        return Wrapped(seal(secret, key=key, bound=bound.text), file_key_id(key))

    def unwrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> bytes:
        """Under the key of that id, the present one or an earlier one."""
        key = self.key()
        if file_key_id(key) != root_id:
            try:
                key = _read_private(self._earlier(root_id))
            except FileNotFoundError:
                key = self.key()  # it was retired this moment: then the present one has wrapped this again
        return unseal(wrapped, key=key, bound=bound.text)

    def rewrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> Wrapped:
        """Under the present key."""
        return self.wrap(self.unwrap(wrapped, bound, root_id=root_id), bound)

    def knows(self, root_id: str) -> bool:
        """Whether a file of that key is there."""
        return root_id == self.id or self._earlier(root_id).exists()

    def rotate(self) -> None:
        """A new file takes the place of the old one, which keeps its id as an ending."""
        old = self.key()
        if not os.access(self.file.parent, os.W_OK):
            raise KeyRefused(
                _(
                    "The folder of the root key is read-only. Name a new key in ROOT_KEY,"
                    " this one in ROOT_KEY_PREVIOUS, and run rotate_keys --root --rewrap-only."
                )
            )
        kept = self._earlier(file_key_id(old))
        with contextlib.suppress(FileExistsError):
            os.link(self.file, kept)
        self._draft(os.urandom(KEY_BYTES)).rename(self.file)

    def retire(self) -> int:
        """Overwrite and remove the earlier files."""
        earlier = [file for file in self.file.parent.glob(f"{self.file.name}.*") if len(file.suffix) == 33]
        for file in earlier:
            file.write_bytes(bytes(KEY_BYTES))
            file.unlink()
        return len(earlier)

    def _earlier(self, root_id: str) -> Path:
        return self.file.with_name(f"{self.file.name}.{root_id}")

    def _draft(self, key: bytes) -> Path:
        draft = self.file.with_name(f".{self.file.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(key)
            new.flush()
            os.fsync(new.fileno())
        return draft


def seal(secret: bytes, *, key: bytes, bound: str) -> bytes:
    """Encrypt a key under another, bound to a place: nonce, then AES-256-GCM ciphertext and tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound.encode())


def unseal(wrapped: bytes, *, key: bytes, bound: str) -> bytes:
    """The wrapped key; raises KeyDestroyed when this key or place did not wrap it."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound.encode())
    except InvalidTag:
        raise KeyDestroyed("A wrapped key does not open under this key and place.") from None


def file_key_id(key: bytes) -> str:
    """A short name of a key that says nothing about it."""
    return hashlib.sha256(b"cloister/root-id/v1" + key).hexdigest()[:32]


def _read_private(file: Path) -> bytes:
    """A key file's 32 bytes. Raises PermissionError when others may read it."""
    with file.open("rb") as source:
        if os.fstat(source.fileno()).st_mode & 0o077:
            raise PermissionError(f"The root key {file} must be readable by its owner only: chmod 600.")
        key = source.read()
    if len(key) != KEY_BYTES:
        raise ValueError(f"The root key {file} must have {KEY_BYTES} bytes.")
    return key


def installation() -> RootKey:
    """The root key that wraps from now on (ROOT_KEY)."""
    return named(settings.ROOT_KEY)


def known(root_id: str) -> RootKey | None:
    """The installation's root key of that id: the present one, or one of ROOT_KEY_PREVIOUS; None for any other."""
    for one in (settings.ROOT_KEY, *settings.ROOT_KEY_PREVIOUS):
        key = named(one)
        if key.knows(root_id):
            return key
    return None


def named(reference: str, *, transits: Mapping[str, str] | None = None) -> RootKey:
    """The key that a setting names: file:PATH, aws-kms:ARN or vault:URL/MOUNT/KEY.

    With `transits` (of OWN_KEYS) a Vault reference is NAME/KEY and the address comes from there, never from a tenant.
    Raises ValueError for anything else.
    """
    kind, _colon, rest = reference.partition(":")
    if kind == "file" and rest:
        return FileKey(Path(rest))
    if kind == "aws-kms" and rest:
        return _aws(rest, os.getpid())
    if kind == "vault" and rest:
        name, _slash, key = rest.partition("/")
        return _transit(f"{transits[name]}/{key}", name) if transits is not None else _transit(rest, "")
    raise ValueError(f"A root key is file:PATH, aws-kms:ARN or vault:URL/MOUNT/KEY, not {kind!r}.")


@functools.cache
def _aws(arn: str, _process: int) -> RootKey:  # connections are not shared with a forked parent
    from tenants.root_keys_aws import AwsKey  # only installations that use it pay for boto3

    return AwsKey(arn)


@functools.cache
def _transit(address: str, name: str) -> RootKey:
    from tenants.root_keys_transit import TransitKey

    return TransitKey(address, name)


def prove(key: RootKey, tenant_id: uuid.UUID | None = None) -> None:
    """Wrap and unwrap a throw-away key, and see that another place does not open it; raises Refusal.

    In the place of `tenant_id`, whose reference a tenant's own key may ask for: then nobody else can take that key.
    """
    here, elsewhere = Bound(tenant_id or uuid.UUID(int=1), 1), Bound(uuid.UUID(int=2), 1)
    secret = os.urandom(KEY_BYTES)
    wrapped, root_id = key.wrap(secret, here)
    if key.unwrap(wrapped, here, root_id=root_id) != secret:
        raise KeyRefused(_("The key does not return what it wrapped."))
    try:
        key.unwrap(wrapped, elsewhere, root_id=root_id)
    except (KeyDestroyed, KeyRefused):
        return
    raise KeyRefused(_("The key ignores its context. A Vault key must be made with derived=true."))


_health: tuple[float, str] = (float("-inf"), "")
_asking = threading.Lock()


def health() -> str:
    """ "ok", or why the installation's root key cannot be used; asked at most every HEALTH_SECONDS."""
    global _health
    with _asking:
        at, state = _health
        if time.monotonic() - at > HEALTH_SECONDS:
            state = _state()
            _health = (time.monotonic(), state)
        return state


def _state() -> str:
    try:
        prove(installation())
    except KeysUnreachable:
        return "cannot be reached"
    except (KeyRefused, KeyDestroyed, OSError, ValueError) as error:
        return f"cannot be used ({type(error).__name__})"
    return "ok"
