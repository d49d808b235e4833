"""Runs batches slice by slice, fair among tenants; answers, counts, usage and place are committed together."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.conf import settings
from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from billing.actions import record_usages
from billing.plans import BATCH_SHARE
from billing.queries import Standing, account_of, usage_this_month
from modeling.actions import batch_ending
from modeling.batch_lines import Line, check, read_lines, untried_line
from modeling.models import Batch, BatchSlice
from modeling.models.batches import WINDOW
from modeling.serving.gateway_auth import Admission, in_database
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_served import served_offline
from modeling.serving.offline import Answered, Slice
from tenants import vault
from tenants.access import Caller
from tenants.models import Tenant
from tenants.scope import scope

LEASE = timedelta(seconds=60)
RENEW_SECONDS = 15.0
SLICE_SECONDS = 5.0
SLICE_LINES = 2_000
UNTRIED_LINES = 10_000  # lines a slice of a batch that was cancelled or has expired
MOST_OUTPUT_BYTES = 2 << 30  # of one batch: embeddings are thousands of times their inputs
TRIES = 20  # claims without progress: workers die of this batch
_BROKEN = {
    "code": "server_error",
    "line": None,
    "message": "This batch could not be run. Please report it.",
    "param": None,
}
PAUSED, NO_ENGINE = timedelta(seconds=60), timedelta(seconds=5)
UNTRIED = {
    Batch.State.COMPLETED: (
        "batch_output_too_large",
        "The answers of this batch have reached 2 GiB. Send this request in another batch.",
    ),
    Batch.State.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was executed."),
    Batch.State.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


@dataclass(frozen=True)
class Lease:
    """The right to write one batch's next slice, until a later claim."""

    tenant: Tenant
    batch: Batch

    def rows(self) -> Any:
        """The batch's row as long as this lease is the newest; inside the tenant's scope."""
        return Batch.objects.of(self.tenant).filter(pk=self.batch.pk, epoch=self.batch.epoch)

    def renew(self) -> None:
        """Keep it for another minute. Opens the tenant's scope."""
        with scope(self.tenant):
            self.rows().update(lease_until=Now() + LEASE)


@dataclass(frozen=True)
class Waiting:
    """An open batch that nobody holds, as the operator role sees it."""

    tenant_id: uuid.UUID
    batch_id: uuid.UUID
    served_at: datetime | None


def run_next(*, is_stopping: Callable[[], bool] = lambda: False) -> bool:
    """Run a slice of the batch whose tenant has waited longest; False when there is none, or enough run already."""
    for waiting in _in_turn():
        lease = claim(waiting)
        if lease is not None:
            try:
                _advance(lease, is_stopping)
            except vault.KeysAway:
                _release(lease, wait_until=Now() + PAUSED)
            return True
    return False


def _in_turn() -> list[Waiting]:
    """Open batches: tenants in the order in which they were served last, and so the batches of each."""
    now = timezone.now()
    is_served = Q(tenant__state=Tenant.State.ACTIVE) | Q(expires_at__lte=now)
    rows = Batch.objects.everywhere().filter(is_served, state__in=Batch.OPEN)
    found = list(rows.values_list("tenant_id", "pk", "served_at", "lease_until", "wait_until").order_by("pk"))
    if (
        sum(lease is not None and lease > now for _tenant, _pk, _at, lease, _wait in found)
        >= settings.BATCH_SLOTS
    ):
        return []
    last = _served_last({tenant_id for tenant_id, *_rest in found})
    free = [
        Waiting(tenant_id, pk, at)
        for tenant_id, pk, at, lease, wait in found
        if (lease is None or lease <= now) and (wait is None or wait <= now)
    ]
    free.sort(
        key=lambda one: (last.get(one.tenant_id, 0.0), one.served_at.timestamp() if one.served_at else 0.0)
    )
    return free


def _served_last(tenants: set[uuid.UUID]) -> dict[uuid.UUID, float]:
    """When each was served last, by batches that have ended too: a new file is no place at the head of the line."""
    rows = Batch.objects.everywhere().filter(tenant__in=tenants, served_at__gte=timezone.now() - WINDOW)
    newest = rows.order_by().values_list("tenant_id").annotate(newest=Max("served_at"))
    return {tenant_id: at.timestamp() for tenant_id, at in newest}


def claim(waiting: Waiting) -> Lease | None:
    """Take a batch for a minute; None when somebody else was first."""
    with scope(waiting.tenant_id):
        free = Q(lease_until=None) | Q(lease_until__lte=Now())
        rows = Batch.objects.of(waiting.tenant_id).filter(free, pk=waiting.batch_id, state__in=Batch.OPEN)
        if not rows.update(
            lease_until=Now() + LEASE,
            epoch=F("epoch") + 1,
            tries=F("tries") + 1,
            served_at=Now(),
            wait_until=None,
        ):
            return None
        mine = Batch.objects.of(waiting.tenant_id).select_related("tenant", "file__object")
        batch = mine.get(pk=waiting.batch_id)
        return Lease(batch.tenant, batch)


def _advance(lease: Lease, is_stopping: Callable[[], bool]) -> None:
    """One step of a batch: check its file, answer a slice, write off the rest, or write the files."""
    batch = lease.batch
    if batch.tries > TRIES:
        batch_ending.fail(lease, [_BROKEN])
    elif batch.state == Batch.State.VALIDATING:
        _validate(lease)
    elif batch.state == Batch.State.FINALIZING:
        batch_ending.finish(lease)
    elif batch.state == Batch.State.CANCELLING:
        _write_off(lease, Batch.State.CANCELLED)
    elif batch.expires_at <= timezone.now():
        _write_off(lease, Batch.State.EXPIRED)
    elif _output_bytes(lease) >= MOST_OUTPUT_BYTES:
        _write_off(lease, Batch.State.COMPLETED)
    else:
        _answer(lease, is_stopping)


def _output_bytes(lease: Lease) -> int:
    """Of the answers so far."""
    with scope(lease.tenant):
        slices = BatchSlice.objects.of(lease.tenant).filter(batch=lease.batch)
        return int(slices.aggregate(size=Sum("output_bytes"))["size"] or 0)


def _release(lease: Lease, **changes: Any) -> None:
    with scope(lease.tenant):
        lease.rows().update(lease_until=None, tries=0, **changes)


def _validate(lease: Lease) -> None:
    """Check the whole file; a file with an error runs not at all."""
    source = vault.open(batch_ending.input_of(lease.batch))
    with closing(source):
        found = check(source, lease.batch.endpoint)
    if found.errors:
        batch_ending.fail(lease, found.errors)
        return
    with scope(lease.tenant):
        rows = lease.rows().filter(state=Batch.State.VALIDATING)
        rows.update(state=Batch.State.IN_PROGRESS, in_progress_at=Now(), total=found.requests)
        lease.rows().update(lease_until=None, tries=0)


def _answer(lease: Lease, is_stopping: Callable[[], bool]) -> None:
    """Answer lines for some seconds and commit them."""
    admitted = _admitted(lease)
    if admitted is None:
        _release(lease, wait_until=Now() + PAUSED)
        return
    admission, left = admitted
    plan = Slice(
        admission=admission,
        endpoint=lease.batch.endpoint,
        left=left,
        name=lambda line: line_id(lease.batch, line),
        seconds=SLICE_SECONDS,
        lines_most=SLICE_LINES,
        is_stopping=is_stopping,
    )
    with closing(vault.open(batch_ending.input_of(lease.batch))) as source:
        lines = read_lines(source, offset=lease.batch.offset, number=lease.batch.line)
        answers, is_all = asyncio.run(_while_held(lease, plan, lines))
    if not answers and not is_all:
        _release(lease, wait_until=Now() + NO_ENGINE)
        return
    commit(lease, answers, ends_as=Batch.State.COMPLETED if is_all else None)


def _admitted(lease: Lease) -> tuple[Admission, dict[str, float]] | None:
    """The tenant as a caller, and what is left of its plan this month; None while it is suspended for a payment."""
    tenant = lease.tenant
    with scope(tenant):
        plan, standing = account_of(tenant)
        used = usage_this_month(tenant)
    if standing is Standing.SUSPENDED:
        return None
    caller = Caller(tenant, lease.batch.public_id, frozenset({"predict"}), "batch", lease.batch.public_id)
    left = {
        kind: float("inf") if plan.price_of(kind) > 0 else getattr(plan, kind) - float(used[kind])
        for kind in ("predictions", "tokens")
    }
    return Admission(caller, plan, standing), left


async def _while_held(lease: Lease, plan: Slice, lines: Iterator[Line]) -> tuple[list[Answered], bool]:
    """Run the slice and keep the lease meanwhile: a chat may take longer than a slice is meant to."""
    keeping = asyncio.create_task(_keep(lease))
    try:
        answers, is_all = await plan.run(lines)
    finally:
        keeping.cancel()
    limiter = Limiter(settings.REDIS_URL)  # live requests see at once what the batch used
    for kind, amount in _used(answers).items():
        await limiter.adjust(plan.admission, kind, round(amount * BATCH_SHARE))
    await limiter.close()
    return answers, is_all


def _used(answers: list[Answered]) -> dict[str, float]:
    used: dict[str, float] = {}
    for one in answers:
        for kind, amount in one.used.items():
            used[kind] = used.get(kind, 0.0) + amount
    return used


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await in_database(lease.renew)


def _sum(before: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    return {kind: before.get(kind, 0.0) + more.get(kind, 0.0) for kind in before | more}


def _billed(before: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    """What a slice adds to the bill: whole units, which sum up to the batch's share of all that it used."""
    after = _sum(before, more)
    return {
        kind: float(int(after[kind] * BATCH_SHARE) - int(before.get(kind, 0.0) * BATCH_SHARE))
        for kind in after
    }


def line_id(batch: Batch, line: Line) -> str:
    """A line's id: the same in every attempt."""
    return f"batch_req_{batch.public_id.removeprefix('batch_')}_{line.number}"


def _write_off(lease: Lease, ends_as: Batch.State) -> None:
    """Error lines for what was not run: each line of the input is answered or said not to have been."""
    batch = lease.batch
    if batch.in_progress_at is None:  # cancelled before its file was checked: nothing is known of its lines
        commit(lease, [], ends_as=ends_as)
        return
    code, message = UNTRIED[ends_as]
    with closing(vault.open(batch_ending.input_of(batch))) as source:
        lines = read_lines(source, offset=batch.offset, number=batch.line)
        some = list(islice(lines, UNTRIED_LINES))
    answers = [_untried(batch, line, code, message) for line in some]
    commit(lease, answers, ends_as=ends_as if len(some) < UNTRIED_LINES else None)


def _untried(batch: Batch, line: Line, code: str, message: str) -> Answered:
    custom_id, _body = line.request()
    return Answered(line, False, untried_line(line_id(batch, line), custom_id, code, message), {})


def commit(lease: Lease, answers: list[Answered], *, ends_as: Batch.State | None) -> bool:
    """Seal a slice's answers and write its row, the counts, the usage and the place in one transaction.

    False, and nothing is written, when a later claim took the batch. `ends_as` says that no line is left.
    """
    batch, tenant = lease.batch, lease.tenant
    outputs = [one.content for one in answers if one.is_good]
    errors = [one.content for one in answers if not one.is_good]
    used = _used(answers)
    last = answers[-1].line if answers else Line(batch.line, batch.offset, b"")
    changes: dict[str, Any] = {
        "offset": last.end,
        "line": last.number,
        "completed": F("completed") + len(outputs),
        "failed": F("failed") + len(errors),
        "slices": F("slices") + int(bool(answers)),
        "used": _sum(batch.used, used),
        "lease_until": None,
        "tries": 0,
    }
    if ends_as is not None:
        changes |= {"state": Batch.State.FINALIZING, "ends_as": ends_as, "finalizing_at": Now()}
    with vault.create(tenant, "batch") as sink:
        sink.write(b"".join(outputs))
        sink.write(b"".join(errors))
        with scope(tenant):
            if not lease.rows().update(**changes):
                return False
            if answers:
                BatchSlice.objects.of(tenant).create(
                    batch=batch,
                    number=batch.slices,
                    output_bytes=sum(map(len, outputs)),
                    object=sink.finish(),
                )
            name = f"{batch.public_id}-{batch.slices}"
            billed = _billed(batch.used, used)
            record_usages(tenant, [(kind, amount, name, timezone.now()) for kind, amount in billed.items()])
            served_offline(tenant, [one.seen for one in answers if one.seen is not None])
    return True
