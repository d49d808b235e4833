"""What comes with a part of an upload: its number and checksum, from the form or from a digest header."""

from __future__ import annotations

import base64
import binascii
import re

from django.http import HttpRequest
from django.utils.translation import gettext as _

from modeling.actions.upload_parts import SentPart
from modeling.uploads import VaultUpload
from saas.lib.errors import Refusal

HEADERS = ("Content-Digest", "Repr-Digest")  # of the part's bytes, as RFC 9530 writes them
_DIGESTS = {"sha-256": ("sha256", 32), "md5": ("md5", 16)}
_MEMBER = re.compile(r"\s*([\w-]+)=:([A-Za-z0-9+/=]*):\s*(?:,|$)")


def sent_part(request: HttpRequest) -> SentPart:
    """The part of a request whose upload handler has taken the form field `data`. Raises Refusal."""
    data = request.FILES.get("data")
    if not isinstance(data, VaultUpload):
        raise Refusal(_("Send the part in the form field `data`."), param="data", code="missing_data")
    declared = _from_headers(request)
    for name, size in _DIGESTS.values():
        if given := str(request.POST.get(name, "")):
            if re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", given) is None:
                raise Refusal(_("This is no checksum in hexadecimal."), param=name)
            declared[name] = given
    return SentPart(
        writer=data.writer,
        sha256=data.sha256,
        number=_number(str(request.POST.get("part_number", ""))),
        declared_sha256=declared.get("sha256", ""),
        declared_md5=declared.get("md5", ""),
    )


def _number(given: str) -> int | None:
    if not given:
        return None
    if not given.isdecimal() or len(given) > 6:
        raise Refusal(_("part_number is 1 to 10,000."), param="part_number")
    return int(given)


def _from_headers(request: HttpRequest) -> dict[str, str]:
    declared: dict[str, str] = {}
    for header in HEADERS:
        for kind, encoded in _MEMBER.findall(request.headers.get(header, "")):
            if kind.lower() not in _DIGESTS:
                continue
            name, size = _DIGESTS[kind.lower()]
            try:
                value = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                value = b""
            if len(value) != size:
                raise Refusal(_("The header %(header)s is not readable.") % {"header": header}, param=header)
            declared[name] = value.hex()
    return declared
