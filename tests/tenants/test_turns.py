"""Heavy work on data: few pieces at a time, the tenants in turns, and never all processes for one of them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from modeling.actions import inspection
from modeling.models import File, Inspection
from modeling.tasks.datasets import inspect_file
from saas import stack
from tenants import turns
from tenants.scope import scope
from tenants.turns import Kind, Piece, take, turn

A, B, C = (uuid.UUID(int=number) for number in (1, 2, 3))


class Line:
    """Pieces that wait, a minute apart in the order of their coming, and those that were done."""

    def __init__(self) -> None:
        self.waiting: list[Piece] = []
        self.done: list[Piece] = []
        turns.register("test", Kind("tests.work", "piece_id", self._run, self._waiting))

    def add(self, tenant: uuid.UUID, count: int = 1) -> list[Piece]:
        made = [Piece("test", tenant, uuid.uuid4()) for _ in range(count)]
        self.waiting += made
        return made

    def _run(self, piece: Piece) -> None:
        if piece in self.waiting:
            self.waiting.remove(piece)
            self.done.append(piece)

    def _waiting(self) -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
        first = timezone.now() - timedelta(hours=1)
        return [(one.tenant_id, one.id, first + timedelta(minutes=at)) for at, one in enumerate(self.waiting)]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(turns, "_kinds", {})
    monkeypatch.setattr(turns, "_ran_at", {})
    return Line()


@contextmanager
def at_work(line: Line, piece: Piece) -> Iterator[Piece | None]:
    """Another worker, with a database session of its own, that has just begun with the piece."""
    begun, over, found = threading.Event(), threading.Event(), list[Piece | None]()

    def work() -> None:
        try:
            with turn(piece) as mine:
                found.append(mine)
                if mine in line.waiting:
                    line.waiting.remove(mine)
                begun.set()
                over.wait(30)
        finally:
            begun.set()
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(30)
        yield found[0]
    finally:
        over.set()
        thread.join()


def test_a_piece_is_done_when_its_turn_comes(line: Line) -> None:
    (piece,) = line.add(A)
    assert take("test", A, piece.id) == piece
    assert line.done == [piece]


def test_no_more_at_once_than_there_are_places_and_one_process_stays_free(line: Line) -> None:
    first, second, third = line.add(A) + line.add(B) + line.add(C)
    with at_work(line, first), at_work(line, second):
        assert take("test", C, third.id) is None
        assert line.done == []
    assert take("test", C, third.id) == third
    assert settings.HEAVY_SLOTS < stack.QUICK_PROCESSES


def test_the_second_place_is_another_tenants_while_one_waits(line: Line) -> None:
    mine = line.add(A, 3)
    (theirs,) = line.add(B)
    with at_work(line, mine[0]) as begun:
        assert begun == mine[0]
        assert take("test", A, mine[1].id) == theirs  # the hint was for A, the turn is B's
        assert take("test", A, mine[1].id) == mine[1]  # nobody else waits: the place need not stay empty
    assert line.done == [theirs, mine[1]]


def test_without_counting_who_is_at_work_one_tenant_has_all_places(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the oldest piece would be the same tenant's again."""
    from collections import Counter

    monkeypatch.setattr(turns, "_at_work", Counter)
    mine = line.add(A, 3)
    line.add(B)
    with at_work(line, mine[0]):
        assert take("test", A, mine[1].id) == mine[1]


def test_a_worker_that_dies_gives_its_place_back(line: Line) -> None:
    """The place is the session's: it ends with the connection, without anybody giving it back."""
    first, second, third = line.add(A, 3)
    with at_work(line, first), turn(second) as mine:
        assert mine == second
        line.waiting.remove(second)
        assert _outcome(line, third) is None
        connection.close()
        assert _outcome(line, third) == third


def _outcome(line: Line, piece: Piece) -> Piece | None:
    with at_work(line, piece) as mine:
        return mine


def test_hints_go_to_the_first_of_every_tenant_at_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(turns, "enqueue", lambda task, **ids: sent.append(str(ids["piece_id"])))
    pieces = line.add(A, 4) + line.add(B) + line.add(C)
    assert take("test", A, pieces[0].id) == pieces[0]
    assert sent == [str(pieces[at].id) for at in (1, 4, 5, 2)]


def test_what_still_waits_after_its_turn_is_not_taken_up_at_once(line: Line) -> None:
    """A key service that is away leaves a piece waiting: that must not become a loop."""
    (stuck,) = line.add(A)
    turns.register("test", Kind("tests.work", "piece_id", lambda piece: None, line._waiting))
    assert take("test", A, stuck.id) == stuck
    assert turns._waiting() == {}


def _large(name: str) -> bytes:
    rows = "".join(
        f"{name}{n % 500:04d},a note about visit {n} and what came of it,{n % 3}\n" for n in range(24_000)
    )
    return ("patient_id,note,triage\n" + rows).encode()


def test_large_files_of_two_tenants(acme: Any, globex: Any, api: Any, globex_api: Any, line: Line) -> None:
    files = [(acme, api.upload("a.csv", _large("a"))), (acme, api.upload("b.csv", _large("b")))]
    files.append((globex, globex_api.upload("c.csv", _large("c"))))
    ids = []
    for tenant, answer in files:
        with scope(tenant):
            ids.append(File.objects.of(tenant).get(public_id=answer.json()["id"]).pk)

    def waiting() -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
        mine = Inspection.objects.everywhere().filter(file_id__in=ids, done_at=None, lease_until=None)
        return list(mine.order_by("id").values_list("tenant_id", "file_id", "created_at"))

    run = Kind(
        "modeling.inspect_file",
        "file_id",
        lambda one: inspection.inspect_file(one.tenant_id, one.id),
        waiting,
    )
    with at_work(line, Piece("test", acme.pk, uuid.uuid4())):
        turns.register("inspection", run)
        inspect_file(tenant_id=str(acme.pk), file_id=str(ids[0]))
    with scope(globex):
        assert File.objects.of(globex).get(pk=ids[2]).status == File.Status.PROCESSED
    with scope(acme):
        assert {File.objects.of(acme).get(pk=pk).status for pk in ids[:2]} == {File.Status.UPLOADED}
    inspect_file(tenant_id=str(acme.pk), file_id=str(ids[1]))
    with scope(acme):
        assert File.objects.of(acme).get(pk=ids[0]).status == File.Status.PROCESSED  # the older one
