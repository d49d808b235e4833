"""AWS KMS by moto's server, with the one thing that moto leaves out: a key that is not enabled refuses."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.core.exceptions import JsonRESTError
from moto.kms import models

from tests import s3

REGION = "eu-central-1"


@contextmanager
def serving() -> Iterator[Any]:
    """A boto3 client of a running server; the environment sends whoever asks KMS meanwhile to it, children too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KMS", s3.endpoint())
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setattr(models.KmsBackend, "encrypt", _enabled_only(models.KmsBackend.encrypt))
        patch.setattr(models.KmsBackend, "decrypt", _enabled_only(models.KmsBackend.decrypt))
        yield boto3.session.Session().client("kms", region_name=REGION)


def _enabled_only(call: Any) -> Any:
    @functools.wraps(call)
    def checked(self: Any, *args: Any, **named: Any) -> Any:
        key = self.keys.get(self.any_id_to_key_id(named["key_id"])) if named.get("key_id") else None
        if key is not None and key.key_state == "Disabled":
            raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")
        if key is not None and key.key_state != "Enabled":
            raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        return call(self, *args, **named)

    return checked


def new_key(client: Any) -> str:
    """The ARN of a fresh symmetric key."""
    return str(client.create_key()["KeyMetadata"]["Arn"])


def disable(client: Any, arn: str) -> None:
    """The owner takes the key away; `enable` gives it back."""
    client.disable_key(KeyId=arn.rpartition("/")[2])


def enable(client: Any, arn: str) -> None:
    """The owner gives the key back."""
    client.enable_key(KeyId=arn.rpartition("/")[2])
