"""The lease on an inspection: renewed while the worker lives, with its progress for the row and for who watches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.models.functions import Now

from modeling.core.tables import Row
from modeling.core.tables_fast import Block
from modeling.models import File, Inspection
from saas.lib import live
from tenants.models import Tenant
from tenants.scope import scope

logger = logging.getLogger(__name__)
LEASE = timedelta(minutes=3)  # after a worker's death another one takes the file over so much later
EVERY_SECONDS = 2.0


class Superseded(Exception):
    """The inspection is another worker's by now, or over."""


class InspectionLease:
    """One attempt at one file: `attempt` fences it. Bytes and rows are counted as they pass."""

    def __init__(self, tenant: Tenant, file: File, attempt: int) -> None:
        self._tenant, self._file, self._attempt = tenant, file, attempt
        self.bytes = self.rows = 0
        self._told = (0, 0)
        self._lost = False

    def watched(self, pieces: Iterable[Block | list[Row]]) -> Iterator[Block | list[Row]]:
        """The same pieces, counted. Raises Superseded once the lease is lost."""
        for piece in pieces:
            if self._lost:
                raise Superseded
            self.rows += len(piece)
            yield piece

    def renew(self) -> bool:
        """Move the lease's end by the database's clock and write how far it is; False when it is lost."""
        done = (self.rows, self.bytes)
        with scope(self._tenant):
            mine = Inspection.objects.of(self._tenant).filter(
                file_id=self._file.pk, attempts=self._attempt, done_at=None, lease_until__isnull=False
            )
            self._lost = not mine.update(lease_until=Now() + LEASE, rows_done=done[0], bytes_done=done[1])
        if done != self._told and not self._lost:
            self._told = done
            event = {"id": self._file.public_id, "status": "uploaded", "rows": done[0], "bytes": done[1]}
            live.publish(live.group_for("file", self._file.public_id), event)
        return not self._lost


@contextmanager
def kept(
    tenant: Tenant, file: File, attempt: int, *, every: float = EVERY_SECONDS
) -> Iterator[InspectionLease]:
    """Renew from a thread with a connection of its own until the block ends."""
    lease, over = InspectionLease(tenant, file, attempt), threading.Event()
    keeper = threading.Thread(target=_keep, args=(lease, over, every), name="inspection-lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        over.set()
        keeper.join()


def _keep(lease: InspectionLease, over: threading.Event, every: float) -> None:
    try:
        while not over.wait(every):
            try:
                if not lease.renew():
                    return
            except (
                DatabaseError
            ) as error:  # the next try may work; if none does, another worker takes the file
                logger.warning("lease of an inspection not renewed: %s", type(error).__name__)
                connection.close()
    finally:
        connection.close()
