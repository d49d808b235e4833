"""Sealed objects joined into one without a copy: a large upload's parts, read one after another as one file."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from django.db import connection
from django.utils.translation import gettext as _

from saas.lib.errors import Refusal
from saas.lib.positioned import Positioned
from saas.lib.sealed import SealReader
from tenants.models import JoinedPart, VaultObject
from tenants.scope import identity
from tenants.vault_keys import KeyDestroyed, TenantLike

if TYPE_CHECKING:
    from typing_extensions import Buffer

KIND: Final = "joined"  # of an object that has no bytes and no key of its own, only its parts


class JoinedReader(Positioned):
    """A readable, seekable view of the parts' plaintext; one part is open at a time, however many there are.

    Keys are fetched as it goes. Raises SealBroken, and Refusal (410) once the parts were destroyed.
    """

    def __init__(self, parts: Sequence[VaultObject], open_part: Callable[[VaultObject], SealReader]) -> None:
        super().__init__()
        self._parts = parts
        self._starts = [0, *accumulate(part.size_bytes for part in parts)]
        self._open_part = open_part
        self._open: SealReader | None = None
        self._at = -1
        self.size = self._starts[-1]

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` as far as the plaintext goes, across parts; returns bytes written."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and self._position < self.size:
            got = self._source().readinto(target[filled:])
            if not got:
                raise EOFError("A part is shorter than its row says.")
            filled += got
            self._position += got
        return filled

    def close(self) -> None:
        """Close this view and the part that is open."""
        if self._open is not None:
            self._open.close()
        super().close()

    def _source(self) -> SealReader:
        """The part that holds the position, standing there."""
        at = bisect_right(self._starts, self._position) - 1
        if self._open is None or at != self._at:
            if self._open is not None:
                self._open.close()
            try:
                self._open, self._at = self._open_part(self._parts[at]), at
            except (KeyDestroyed, FileNotFoundError):
                raise Refusal(_("This file was deleted."), status=410, code="gone") from None
            if not connection.in_atomic_block:  # a thread that feeds a child leaves no connection behind
                connection.close()
        self._open.seek(self._position - self._starts[at])
        return self._open


def join(tenant: TenantLike, parts: Sequence[VaultObject]) -> VaultObject:
    """Make one object of these, which it owns from then on; inside the tenant's scope. Takes no time."""
    tenant_id = identity(tenant)
    digest = hashlib.sha256("".join(part.digest for part in parts).encode())
    whole = VaultObject.objects.of(tenant_id).create(
        kind=KIND,
        size_bytes=sum(part.size_bytes for part in parts),
        sealed_bytes=0,
        digest=digest.hexdigest(),
    )
    rows = [JoinedPart(tenant_id=tenant_id, whole=whole, part=part, place=n) for n, part in enumerate(parts)]
    JoinedPart.objects.of(tenant_id).bulk_create(rows)
    return whole


def parts_of(whole: VaultObject) -> list[VaultObject]:
    """The objects that a joined one is made of, in order; inside the scope."""
    rows = JoinedPart.objects.of(whole.tenant_id).filter(whole_id=whole.pk)
    return [row.part for row in rows.select_related("part").order_by("place")]
