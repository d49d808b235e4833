"""A root key in AWS KMS: Encrypt and Decrypt with an encryption context; the key itself never leaves KMS."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.utils.translation import gettext as _

from tenants.root_keys import Bound, KeyDestroyed, KeyRefused, KeysUnreachable, Wrapped

ARN: Final = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov):kms:([a-z0-9-]{4,30}):(\d{12}):key/([A-Za-z0-9-]{1,64})"
)
# One short retry; the answer to a whole page must not wait for a service that is gone.
_PATIENCE: Final = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2})
_NOT_OURS: Final = {"InvalidCiphertextException", "IncorrectKeyException"}
_REFUSED: Final = {
    "AccessDeniedException",
    "DisabledException",
    "ExpiredTokenException",
    "InvalidArnException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
    "UnrecognizedClientException",
}


class AwsKey:
    """One symmetric key, named by its ARN; the region comes from it, credentials from boto3's usual places."""

    def __init__(self, arn: str) -> None:
        found = ARN.fullmatch(arn)
        if found is None:
            raise ValueError("Name the key by its whole ARN: arn:aws:kms:REGION:ACCOUNT:key/ID.")
        self.arn = arn
        self._client: Any = boto3.session.Session().client("kms", region_name=found[2], config=_PATIENCE)

    @property
    def id(self) -> str:
        """A digest of the ARN."""
        return hashlib.sha256(f"cloister/aws-kms/v1|{self.arn}".encode()).hexdigest()[:32]

    @property
    def label(self) -> str:
        """The ARN."""
        return self.arn

    def wrap(self, secret: bytes, bound: Bound) -> Wrapped:
        """KMS's ciphertext blob."""
        made = self._ask(
            self._client.encrypt, Plaintext=secret, EncryptionContext=bound.fields, KeyId=self.arn
        )
        return Wrapped(bytes(made["CiphertextBlob"]), self.id)

    def unwrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> bytes:
        """What KMS opens under this very key and context."""
        opened = self._ask(
            self._client.decrypt, CiphertextBlob=wrapped, EncryptionContext=bound.fields, KeyId=self.arn
        )
        return bytes(opened["Plaintext"])

    def rewrap(self, wrapped: bytes, bound: Bound, *, root_id: str) -> Wrapped:
        """Opened by whichever backing key made it, wrapped by the newest."""
        return self.wrap(self.unwrap(wrapped, bound, root_id=root_id), bound)

    def knows(self, root_id: str) -> bool:
        """KMS keeps the versions of a key under one name."""
        return root_id == self.id

    def rotate(self) -> None:
        """A new backing key, at once."""
        self._ask(self._client.rotate_key_on_demand, KeyId=self.arn)

    def retire(self) -> int:
        """KMS keeps every backing key as long as the key lives: nothing of it lies here."""
        return 0

    def _ask(self, call: Callable[..., Mapping[str, Any]], **fields: Any) -> Mapping[str, Any]:
        try:
            return call(**fields)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _NOT_OURS:
                raise KeyDestroyed("A wrapped key does not open under this key and place.") from None
            if code in _REFUSED:
                text = _("AWS KMS refuses the key: %(code)s.") % {"code": code}
                raise KeyRefused(text) from None
            raise KeysUnreachable from None
        except BotoCoreError as error:
            raise KeysUnreachable from error
