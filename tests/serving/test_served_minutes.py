"""The figures of a model's page are the usage rows and the operators' totals, however often they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from billing.models import UsageEvent
from billing.plans import BATCH_SHARE, FREE, TEAM
from modeling.models import ServedMinutes
from modeling.queries import served
from modeling.serving import gateway_served, latency
from modeling.serving.gateway_metrics import METRICS, Seen
from modeling.serving.gateway_served import STEP_SECONDS, Served, served_offline, served_once, write_served
from modeling.serving.gateway_usage import UsageBatches
from modeling.tasks.served import forget_served
from tenants.models import Tenant
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, leave_after, lifespan, make_version

COUNTED = ("requests", "latency", "first_token", "tokens", "predictions")


def seen_of(model: str, *, status: int = 200, **counts: Any) -> Seen:
    seen = Seen(status=status, model=model, **counts)
    seen.model_class = "head"
    return seen


def total(tenant: Tenant, model: str, *, hours: float = 1) -> served.Served:
    """What the page would say."""
    now = timezone.now()
    with scope(tenant):
        return served.usage(tenant, model, now - timedelta(hours=hours), now + timedelta(minutes=5)).total


def used(tenant: Tenant) -> dict[str, int]:
    with scope(tenant):
        found: dict[str, int] = {}
        for kind, quantity in UsageEvent.objects.of(tenant).values_list("kind", "quantity"):
            found[kind] = found.get(kind, 0) + int(quantity)
    return found


@pytest.mark.real_weights
@pytest.mark.asyncio
async def test_the_page_the_bill_and_the_operators_agree(
    settings: Any, engine: EngineProcess, people: Any, acme: Tenant
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    for name in COUNTED:
        getattr(METRICS, name).clear()
    key = await in_thread(people.key, acme, "predict", "usage")
    version = await in_thread(make_version, acme, *head_parts(5, 7))
    chat = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    async with lifespan(), client(key) as http:
        for inputs in (["one"], ["one", "two"], ["one", "two", "three"]):
            assert (
                await http.post("/v1/classify", json={"model": version.name, "inputs": inputs})
            ).status_code == 200
        wrong = await http.post("/v1/chat/completions", json=chat | {"model": version.name})
        assert wrong.status_code == 400
        assert (
            await http.post("/v1/embeddings", json={"model": version.name, "input": "words"})
        ).status_code == 200
        await http.post("/v1/chat/completions", json=chat)
        await http.post("/v1/chat/completions", json=chat | {"stream": True})
        await leave_after(key, "/v1/chat/completions", chat | {"stream": True, "max_tokens": 300}, events=4)
    ours, base = await in_thread(total, acme, version.name), await in_thread(total, acme, "smollm2-135m")
    bill = await in_thread(used, acme)
    assert (ours.requests, ours.answered, ours.client_errors) == (4, 4, 0)
    assert (base.requests, base.answered, base.abandoned) == (3, 2, 1)
    assert ours.predictions == bill["predictions"] == METRICS.predictions["head"] == 6
    embedded = METRICS.latency["embeddings", "head"]
    assert sum(embedded.counts) == 1
    with_embedding = await in_thread(tokens_billed, acme, version.name)
    assert with_embedding + base.tokens_in + base.tokens_out == bill["tokens"]
    assert METRICS.tokens["base", "in"] == base.tokens_in
    assert METRICS.tokens["base", "out"] == base.tokens_out > 10
    assert METRICS.tokens["head", "in"] == ours.tokens_in
    assert (
        sum(METRICS.requests.values()) == ours.requests + base.requests + 1
    )  # one never named a model it may ask
    assert ours.latency == latency.added(
        [METRICS.latency["classify", "head"].counts, METRICS.latency["embeddings", "head"].counts]
    )
    assert sum(base.first_token) == 1


def tokens_billed(tenant: Tenant, model: str) -> int:
    with scope(tenant):
        return served.cost_this_month(tenant, model, FREE).tokens


def test_writing_twice_changes_nothing(acme: Tenant) -> None:
    counts = Served()
    counts.note(acme, "classify", seen_of("m", predictions=2), 0.004)
    first = counts.changed(acme)
    assert counts.changed(acme) == []
    with scope(acme):
        write_served(acme, first)
        write_served(acme, first)  # the answer to the first was lost
    counts.note(acme, "classify", seen_of("m", status=404), 0.004)
    counts.unwritten(acme, [])
    with scope(acme):
        write_served(acme, counts.changed(acme))
        other = Served()
        other.note(acme, "classify", seen_of("m", status=429), 9.0)  # another process
        write_served(acme, other.changed(acme))
        assert ServedMinutes.objects.of(acme).count() == 2
    found = total(acme, "m")
    assert (found.answered, found.client_errors, found.rejected, found.predictions) == (1, 1, 1, 2)
    assert sum(found.latency) == 1  # only what was answered


@pytest.mark.asyncio
async def test_what_the_database_refuses_is_written_later_with_the_usage(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = UsageBatches()
    usage.add(acme, "predictions", 1, "req_1")
    usage.note(acme, "classify", seen_of("m", predictions=1), 0.01)

    def rename(before: str, after: str) -> None:
        from django.db import connections

        with connections["migrator"].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")

    await in_thread(rename, "modeling_servedminutes", "away")
    try:
        await usage.flush()
    finally:
        await in_thread(rename, "away", "modeling_servedminutes")
    assert await in_thread(used, acme) == {}  # one transaction
    await usage.flush()
    await usage.flush()
    assert await in_thread(used, acme) == {"predictions": 1}
    assert (await in_thread(total, acme, "m")).predictions == 1


def test_memory_is_bounded(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_served, "MOST_OPEN", 3)
    monkeypatch.setattr(METRICS, "events", dict(METRICS.events))
    dropped = METRICS.events["served_dropped"]
    counts, now = Served(), 1_800_000_000.0
    for model in "abcd":
        counts.note(acme, "classify", seen_of(model), 0.01, now=now)
    assert METRICS.events["served_dropped"] == dropped + 1
    assert len(counts.changed(acme)) == 3
    counts.tidy(now=now)
    counts.note(acme, "classify", seen_of("a"), 0.01, now=now)  # the same five minutes go on
    assert [row.answered for row in counts.changed(acme)] == [2]
    counts.tidy(now=now + STEP_SECONDS)
    counts.note(acme, "classify", seen_of("d"), 0.01, now=now + STEP_SECONDS)
    assert [row.model for row in counts.changed(acme)] == ["d"]


def test_old_rows_are_forgotten(acme: Tenant, globex: Tenant) -> None:
    now = timezone.now()
    for tenant in (acme, globex):
        with scope(tenant):
            served_once(tenant, "classify", seen_of("m"), 0.01)
            for days in (34, 36):
                ServedMinutes.objects.of(tenant).create(
                    model="m", route="classify", at=now - timedelta(days=days), writer=str(days)
                )
    assert forget_served() >= 2
    for tenant in (acme, globex):
        with scope(tenant):
            kept = ServedMinutes.objects.of(tenant).order_by("at").values_list("at", flat=True)
            assert [(now - at).days for at in kept] == [34, 0]


def test_out_of_a_tenants_scope_nothing_is_seen(acme: Tenant) -> None:
    with scope(acme):
        served_once(acme, "classify", seen_of("m"), 0.01)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM modeling_servedminutes")
        assert cursor.fetchone() == (0,)


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_truth(values: list[float], share: float) -> None:
    counts = [0] * (len(latency.BOUNDS) + 1)
    for value in values:
        gateway_served._tally(counts, value)
    rank = max(1, -(-len(values) * share // 1))
    truth = sorted(values)[int(rank) - 1]
    bucket, estimate = latency.bucket(counts, share), latency.quantile(counts, share)
    assert bucket is not None
    assert estimate is not None
    low, high = bucket
    assert low <= truth <= (high or float("inf"))
    assert low <= estimate <= (high or latency.BOUNDS[-1])


def test_no_values_no_quantile() -> None:
    assert latency.quantile([], 0.5) is None
    assert latency.bucket(latency.added([]), 0.99) is None


def test_the_api_says_it_too(acme: Tenant, api: Any, people: Any) -> None:
    with scope(acme):
        for seconds, status in ((0.0015, 200), (0.018, 200), (0.5, 503)):
            served_once(acme, "embeddings", seen_of("minilm-l6", status=status, tokens_in=7), seconds)
    answer = api.get("/v1/models/minilm-l6/usage")
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["object"], body["model"], body["step_seconds"]) == ("model.usage", "minilm-l6", 3600)
    assert body["total"]["requests"] == 3
    assert body["total"]["server_errors"] == 1
    assert body["total"]["tokens_in"] == 21
    assert 1 <= body["total"]["latency_ms"]["p50"] <= 2
    assert 15 < body["total"]["latency_ms"]["p99"] <= 20
    assert body["total"]["first_token_ms"] is None
    assert sum(one["requests"] for one in body["data"]) == 3
    now = timezone.now()
    hour = api.get("/v1/models/minilm-l6/usage", **{"from": int(now.timestamp()) - 3600}).json()
    assert (hour["step_seconds"], hour["total"]["requests"]) == (300, 3)
    past = api.get(
        "/v1/models/minilm-l6/usage", **{"from": "2020-01-01T00:00:00+00:00", "to": "2020-01-02T00:00:00Z"}
    ).json()
    assert past["total"]["requests"] == 0
    assert past["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30T00:00:00Z"}, "to"),
        ({"to": "2026-02-03T00:00:00"}, "to"),  # no offset
        ({"from": "99999999999999"}, "from"),
        ({"from": "1700000000", "to": "1600000000"}, "from"),
        ({"from": "1700000000", "to": "1800000000"}, "from"),
    ],
)
def test_times_that_cannot_be(api: Any, query: dict[str, str], param: str) -> None:
    answer = api.get("/v1/models/minilm-l6/usage", **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_strangers_model_has_no_usage(api: Any, globex: Tenant) -> None:
    theirs = make_version(globex, *head_parts(3, 1))
    answers = [api.get(f"/v1/models/{name}/usage") for name in (theirs.name, "ft:minilm-l6:x::zzzzzzzz")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()


def test_the_page(acme: Tenant, alice: Any, globex: Tenant) -> None:
    version = make_version(acme, *head_parts(3, 1))
    page = f"/t/{acme.slug}/models/{version.short_id}/usage/"
    empty = alice.get(page).content.decode()
    assert "No calls yet" in empty
    assert "/v1/classify" in empty  # how to call it
    with scope(acme):
        for _ in range(40):
            served_once(acme, "classify", seen_of(version.name, predictions=3, tokens_in=11), 0.0123)
        served_once(acme, "classify", seen_of(version.name, status=429), 0.001)
        served_once(acme, "chat", seen_of("somebody else's"), 3.0)
    for period, rows in (("1h", 13), ("24h", 25), ("30d", 31)):
        text = alice.get(page, {"period": period}).content.decode()
        assert '<div class="figure__value">41</div>' in text
        assert "1 refused or failed" in text
        assert "between 10 and 15 ms" in text
        assert rows - 1 <= text.count('<tr><td data-value="1') // 2 <= rows + 1  # two charts, every step
        assert "included in Free" in text
    with scope(acme):
        for _ in range(60):
            served_once(acme, "classify", seen_of(version.name), 12.3)
    assert "between 10,000 and 15,000 ms" in alice.get(page).content.decode()
    theirs = make_version(globex, *head_parts(3, 1))
    assert alice.get(f"/t/{acme.slug}/models/{theirs.short_id}/usage/").status_code == 404


def test_steps_are_whole() -> None:
    start = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert served._floor(start, served.STEP) == datetime(2026, 3, 4, 5, 5, tzinfo=UTC)
    assert served._ceiling(start, served.DAY) == datetime(2026, 3, 5, tzinfo=UTC)
    assert served._ceiling(served._floor(start, served.HOUR), served.HOUR) == datetime(
        2026, 3, 4, 5, tzinfo=UTC
    )


def test_slices_of_batch_files_share_their_rows(acme: Tenant) -> None:
    """Else a batch that runs for days leaves ten thousands of rows, which the page reads one by one."""
    for _slice in range(40):
        with scope(acme):
            served_offline(acme, [seen_of("m", predictions=2, tenant=acme) for _line in range(3)])
    with scope(acme):
        rows = list(ServedMinutes.objects.of(acme).filter(route="batch"))
    assert len(rows) <= 2, "the five minutes may end in between"
    assert sum(row.predictions for row in rows) == 40 * 3 * 2
    assert sum(row.answered for row in rows) == 40 * 3


def test_lines_of_a_batch_file_count_without_a_latency_and_at_their_price(acme: Tenant) -> None:
    lines = [seen_of("m", predictions=2, tokens_in=30) for _ in range(3)]
    lines += [seen_of("m", status=400), Seen(status=404)]  # the last never named a model of theirs
    for one in lines[:4]:
        one.tenant = acme
    with scope(acme):
        served_offline(acme, lines)
        served_once(acme, "classify", seen_of("m", predictions=1, tokens_in=10), 0.01)
        cost = served.cost_this_month(acme, "m", TEAM)
    found = total(acme, "m")
    assert (found.answered, found.client_errors, found.predictions) == (4, 1, 7)
    assert sum(found.latency) == 1
    assert (cost.predictions, cost.tokens) == (7, 0)
    price = TEAM.price_of("predictions")
    assert cost.cents == pytest.approx(price * (6 * BATCH_SHARE + 1))
