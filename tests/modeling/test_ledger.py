"""The privacy ledger: append-only, chained, and never overspent, not even by two jobs at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import ProgrammingError, connection

from modeling.actions import chain, jobs
from modeling.actions.specs import JobSpec, PrivacySpec
from modeling.core import accounting
from modeling.models import Dataset, Job, LedgerHead, PrivacyAccount, PrivacyEntry
from modeling.queries.privacy import spending_of
from saas.lib.errors import Refusal
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import as_owner, dataset_of, row_of, started, train, uploaded, words_csv


def account_of(tenant: Tenant) -> PrivacyAccount:
    with scope(tenant):
        return PrivacyAccount.objects.of(tenant).get(merged_into=None)


def used(tenant: Tenant) -> float:
    with scope(tenant):
        return spending_of(tenant, PrivacyAccount.objects.of(tenant).get(merged_into=None)).used


def set_lifetime(tenant: Tenant, epsilon: float) -> None:
    with scope(tenant):
        PrivacyAccount.objects.of(tenant).update(lifetime_epsilon=epsilon)


def test_a_job_is_reserved_charged_and_settled(api: Any, acme: Tenant, words_file: str) -> None:
    job = started(api, words_file, privacy={"epsilon": 3})
    reserved = used(acme)
    assert 3.0 < reserved < 3.5  # the filter's own units: looser than PLD
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    assert done.epsilon is not None
    assert 2.9 < done.epsilon <= 3.0
    assert used(acme) == pytest.approx(reserved, abs=1e-9)
    with scope(acme):
        entries = list(PrivacyEntry.objects.of(acme).order_by("seq"))
        charged = {entry.mechanism["name"]: 0 for entry in entries if entry.kind == "charged"}
        for entry in entries:
            if entry.kind == "charged":
                charged[entry.mechanism["name"]] += entry.mechanism["count"]
        assert charged == done.spent
        assert charged["train"] == done.plan["steps"]
        assert entries[-1].epsilon == done.epsilon
        assert entries[-1].epsilon_replace_one > done.epsilon
        assert accounting.from_record(entries[0].mechanism).sigma == done.plan["mechanisms"][0]["sigma"]


def test_a_cancelled_job_keeps_only_what_it_spent(api: Any, acme: Tenant, words_file: str) -> None:
    job = started(api, words_file)
    assert used(acme) > 8
    assert api.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    assert used(acme) == 0.0


def test_a_budget_that_is_used_up_refuses_in_words(api: Any, acme: Tenant, words_file: str) -> None:
    started(api, words_file)
    set_lifetime(acme, 9.0)
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": words_file})
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "privacy_budget"
    assert "of 9.00 epsilon are used" in answer.json()["error"]["message"]
    assert len(api.get("/v1/fine_tuning/jobs").json()["data"]) == 1


def test_the_same_people_in_another_file_share_one_budget(api: Any, acme: Tenant, tiny: Any) -> None:
    first = uploaded(api, acme, words_csv(600, people=300))
    second = uploaded(api, acme, words_csv(600, people=200, seed=1))
    stranger = uploaded(api, acme, words_csv(600, people=0, seed=2))
    one = started(api, first, privacy={"epsilon": 2, "unit": "person_id"})
    two = started(api, second, privacy={"epsilon": 2, "unit": "person_id"})
    three = started(api, stranger, privacy={"epsilon": 2})
    accounts = [dataset_of(acme, job["id"]).account_id for job in (one, two, three)]
    assert accounts[0] == accounts[1] != accounts[2]


def test_two_lineages_that_turn_out_to_share_people_are_merged(api: Any, acme: Tenant, tiny: Any) -> None:
    left = uploaded(api, acme, words_csv(600, people=200))
    right = uploaded(api, acme, words_csv(600, people=200, seed=1).replace(b"person ", b"other "))
    for file_id in (left, right):
        job = started(api, file_id, privacy={"epsilon": 2, "unit": "person_id"})
        assert train(acme, job["id"]).state == Job.State.SUCCEEDED
    alone = spent_in_each(acme)
    assert len(alone) == 2
    both = (
        words_csv(600, people=200, seed=2)
        + b"\n"
        + words_csv(300, people=200, seed=3).replace(b"person ", b"other ")
    )
    bridge = uploaded(api, acme, both.replace(b"\nother_id,text,label", b""))
    started(api, bridge, privacy={"epsilon": 2, "unit": "person_id"})
    with scope(acme):
        assert PrivacyAccount.objects.of(acme).filter(merged_into=None).count() == 1
        assert Dataset.objects.of(acme).values("account").distinct().count() == 1
    assert used(acme) > max(alone) * 1.5


def spent_in_each(tenant: Tenant) -> list[float]:
    with scope(tenant):
        return [spending_of(tenant, account).used for account in PrivacyAccount.objects.of(tenant)]


def test_privacy_off_marks_the_people_as_unbounded(api: Any, acme: Tenant, words_file: str) -> None:
    job = started(api, words_file, privacy={"mode": "off", "reason": "public texts"})
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    assert done.epsilon is None
    assert account_of(acme).no_bound
    ledger = api.get("/v1/privacy/ledger").json()
    assert [entry["kind"] for entry in ledger["data"]] == ["unbounded"]
    assert "no bound" in ledger["accounts"][0]["words"]


def test_racing_reserves_never_overspend(api: Any, acme: Tenant, words_file: str) -> None:
    first = started(api, words_file)
    set_lifetime(acme, 10.0)
    api.post(f"/v1/fine_tuning/jobs/{first['id']}/cancel")
    for _round in range(10):
        results = race(lambda: start_one(acme, words_file), 2)
        assert sorted(type(result).__name__ for result in results) == ["BudgetExceeded", "Job"]
        assert used(acme) <= 10.0
        winner = next(result for result in results if isinstance(result, Job))
        api.post(f"/v1/fine_tuning/jobs/{winner.public_id}/cancel")
    with scope(acme):
        assert chain.verify(acme) == LedgerHead.objects.of(acme).get().seq


@pytest.mark.parametrize("_round", range(3))
def test_first_jobs_on_the_same_people_open_one_account(
    api: Any, acme: Tenant, tiny: Any, _round: int
) -> None:
    files = [uploaded(api, acme, words_csv(600, people=200, seed=seed)) for seed in (0, 1)]
    starts = iter(files)
    lock = threading.Lock()

    def start() -> Any:
        with lock:
            file_id = next(starts)
        return start_one(acme, file_id, unit="person_id")

    assert all(isinstance(result, Job) for result in race(start, 2))
    with scope(acme):
        assert PrivacyAccount.objects.of(acme).count() == 1


def start_one(tenant: Tenant, file_id: str, *, unit: str = "") -> Any:
    try:
        with scope(tenant):
            return jobs.start(tenant, SYSTEM, JobSpec(training_file=file_id, privacy=PrivacySpec(unit=unit)))
    except Refusal as refusal:
        return refusal


def race(action: Callable[[], Any], runners: int) -> list[Any]:
    """Run the action in threads that start together; their results."""
    barrier, results = threading.Barrier(runners), []

    def run() -> None:
        barrier.wait()
        try:
            results.append(action())
        except Exception as error:  # a deadlock, say: the test sees it among the results
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class TestTampering:
    """Each change is made as the tables' owner, since the app role cannot make it."""

    @pytest.fixture
    def tenant(self, api: Any, acme: Tenant, words_file: str) -> Tenant:
        for _round in range(3):
            api.post(f"/v1/fine_tuning/jobs/{started(api, words_file)['id']}/cancel")
        with scope(acme):
            assert chain.verify(acme, exported=chain.export_head(acme)) >= 9  # the control: whole before
        return acme

    def broken(self, tenant: Tenant, exported: chain.Head | None = None) -> str:
        with scope(tenant), pytest.raises(chain.ChainBroken) as caught:
            chain.verify(tenant, exported=exported)
        return str(caught.value)

    def test_an_edited_entry_is_found(self, tenant: Tenant) -> None:
        changed = as_owner(
            tenant,
            "UPDATE modeling_privacyentry SET mechanism = jsonb_set(mechanism, '{count}', '7') WHERE seq = 5",
        )
        assert changed == 1
        assert "Entry 5 was changed" in self.broken(tenant)

    def test_a_deleted_entry_is_found(self, tenant: Tenant) -> None:
        assert as_owner(tenant, "DELETE FROM modeling_privacyentry WHERE seq = 4") == 1
        assert "Entry 4 is missing" in self.broken(tenant)

    def test_swapped_entries_are_found(self, tenant: Tenant) -> None:
        swap = "UPDATE modeling_privacyentry SET seq = %s WHERE seq = %s"
        for to, old in ((9_999, 4), (4, 5), (5, 9_999)):
            assert as_owner(tenant, swap, to, old) == 1
        assert "does not follow" in self.broken(tenant)

    def test_a_cut_tail_is_found_by_the_head(self, tenant: Tenant) -> None:
        as_owner(tenant, "DELETE FROM modeling_privacyentry WHERE seq > 6")
        assert "cut or added" in self.broken(tenant)

    def test_a_cut_tail_with_its_head_is_found_by_the_exported_head(self, tenant: Tenant) -> None:
        with scope(tenant):
            exported = chain.export_head(tenant)
        as_owner(tenant, "DELETE FROM modeling_privacyentry WHERE seq > 6")
        as_owner(
            tenant,
            "UPDATE modeling_ledgerhead SET seq = 6, entry_hash = "
            "(SELECT entry_hash FROM modeling_privacyentry WHERE seq = 6)",
        )
        with scope(tenant):
            assert chain.verify(tenant) == 6  # the chain alone cannot see it
        assert "tail was cut" in self.broken(tenant, exported)

    def test_a_rewritten_history_is_found_by_the_exported_head(self, tenant: Tenant) -> None:
        with scope(tenant):
            exported = chain.export_head(tenant)
            entries = list(PrivacyEntry.objects.of(tenant).order_by("seq"))
        entries[4].mechanism["count"] = 1
        previous = entries[3].entry_hash
        for entry in entries[4:]:
            entry.previous_hash = previous
            previous = entry.entry_hash = chain.hash_of(entry)
        as_owner(tenant, "DELETE FROM modeling_privacyentry WHERE seq > 4")
        with scope(tenant):
            for entry in entries[4:]:
                entry.save(force_insert=True)
            LedgerHead.objects.of(tenant).update(entry_hash=previous)
            assert chain.verify(tenant) == len(entries)
        assert "exported head" in self.broken(tenant, exported)

    def test_the_app_role_can_change_nothing(self, tenant: Tenant) -> None:
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            scope(tenant),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE modeling_privacyentry SET rdp = '[]'")
        with scope(tenant), connection.cursor() as cursor:
            cursor.execute("DELETE FROM modeling_privacyentry")
            assert cursor.rowcount == 0  # the tenant lives: see tests/modeling/test_tenant_erasing.py
        with scope(tenant):
            chain.verify(tenant)


def test_a_ledger_older_than_its_kept_head_stops_new_jobs(api: Any, acme: Tenant, words_file: str) -> None:
    first = started(api, words_file)
    api.post(f"/v1/fine_tuning/jobs/{first['id']}/cancel")
    as_owner(acme, "DELETE FROM modeling_privacyentry WHERE seq > 1")
    restored = (
        "UPDATE modeling_ledgerhead SET seq = 1, entry_hash = (SELECT entry_hash FROM modeling_privacyentry)"
    )
    assert as_owner(acme, restored) == 1
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": words_file})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_behind")


def test_floats_survive_the_database_exactly(api: Any, acme: Tenant, words_file: str) -> None:
    job = row_of(acme, started(api, words_file, privacy={"epsilon": 7.123456789})["id"])
    with scope(acme):
        entry = PrivacyEntry.objects.of(acme).get(seq=1)
        assert chain.hash_of(entry) == entry.entry_hash
        mechanism = accounting.from_record(entry.mechanism)
        assert entry.rdp == accounting.rdp(mechanism)
    assert mechanism.sigma == job.plan["mechanisms"][0]["sigma"]
