"""Two processes race for the last epsilon of the same people: never both, never over the lifetime budget."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling.actions import chain, jobs, privacy
from modeling.core import accounting
from modeling.models import Job, PrivacyAccount, PrivacyEntry
from modeling.plans import load_plan
from modeling.queries.privacy import spending_of
from tenants.audit import SYSTEM
from tenants.scope import scope
from tests.make import People
from tests.modeling.clinic import row_of, started, train, uploaded, words_csv
from tests.modeling.test_jobs_start import pay_for
from tests.modeling.test_ledger import race
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
RACES = int(os.environ.get("RACES", "100"))
EACH = 100  # races for the same people; then others, whose ledger is short again
CONTROL_EVERY = 10  # a race in which there is room for both
EPSILON = 4.0
SCRIPT = Path(__file__).with_name("race_worker.py")


@pytest.fixture(scope="module")
def racers() -> Iterator[list[subprocess.Popen[str]]]:
    env = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
    made = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _number in range(2)
    ]
    for one in made:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    yield made
    for one in made:
        one.communicate(timeout=10)


class SpentPeople:
    """A tenant whose people have spent a part of their budget: `one` more job fits, `both` would too."""

    def __init__(self, tiny: Path) -> None:
        people = People()
        self.tenant, api = people.acme, people.api("acme")
        pay_for(self.tenant, "business")
        self.file_id = uploaded(api, self.tenant, words_csv(700))
        assert (
            train(self.tenant, started(api, self.file_id, privacy={"epsilon": 3})["id"]).state == "succeeded"
        )
        probe = row_of(self.tenant, started(api, self.file_id, privacy={"epsilon": EPSILON})["id"])
        api.post(f"/v1/fine_tuning/jobs/{probe.public_id}/cancel")
        mechanisms = load_plan(probe.plan).mechanisms
        spending = self.spending()
        self.one = spending.epsilon_after(mechanisms) + 1e-6
        self.both = spending.epsilon_after((*mechanisms, *mechanisms)) + 1e-6
        self.spent = spending.used
        self.mechanisms = mechanisms

    def spending(self) -> Any:
        """What the lineage has spent and set aside."""
        with scope(self.tenant):
            account = PrivacyAccount.objects.of(self.tenant).get(merged_into=None)
            return spending_of(self.tenant, account)

    def allow(self, lifetime: float) -> None:
        """Set the lifetime budget."""
        with scope(self.tenant):
            PrivacyAccount.objects.of(self.tenant).update(lifetime_epsilon=lifetime)

    def cancel(self, public_ids: list[str]) -> None:
        """Give the winners' reservations back."""
        with scope(self.tenant):
            for public_id in public_ids:
                job = Job.objects.of(self.tenant).get(public_id=public_id)
                jobs.cancel(self.tenant, SYSTEM, job)


def run_race(racers: list[subprocess.Popen[str]], people: SpentPeople) -> list[list[str]]:
    """Both processes start a job at the same moment; what each was told."""
    moment = time.monotonic() + 0.02
    for one in racers:
        assert one.stdin is not None
        one.stdin.write(f"{people.tenant.pk} {people.file_id} {EPSILON} {moment}\n")
        one.stdin.flush()
    answers = []
    for one in racers:
        assert one.stdout is not None
        answers.append(one.stdout.readline().split(maxsplit=2))
    return answers


def test_racing_jobs_never_overspend(tiny: Path, racers: list[subprocess.Popen[str]], proof: Proof) -> None:
    begun, counts = time.monotonic(), Counter[str]()
    while counts["races"] < RACES:
        people = SpentPeople(tiny)
        while True:
            has_room = counts["all"] % CONTROL_EVERY == CONTROL_EVERY - 1
            check_race(racers, people, has_room=has_room)
            counts["all"] += 1
            counts["controls" if has_room else "races"] += 1
            if counts["races"] == RACES or counts["all"] % EACH == 0:
                break
        with scope(people.tenant):
            chain.verify(people.tenant, exported=chain.export_head(people.tenant))
    found = (
        f"{counts['races']} races of two processes: one admitted and one refused each time, never over the "
        f"lifetime budget; {counts['controls']} races with room for both: both admitted"
    )
    proof.found("two jobs racing for the last epsilon", found, seconds=time.monotonic() - begun)


def check_race(racers: list[subprocess.Popen[str]], people: SpentPeople, *, has_room: bool) -> None:
    lifetime = people.both if has_room else people.one
    people.allow(lifetime)
    answers = run_race(racers, people)
    admitted = [words[1] for words in answers if words[0] == "admitted"]
    refused = [words for words in answers if words[0] == "refused"]
    assert len(admitted) == (2 if has_room else 1), answers
    used = people.spending().used
    assert people.spent < used <= lifetime
    for _word, code, sentence in refused:
        assert code == "privacy_budget"
        assert "privacy budget does not hold this job" in sentence
        assert f"of {lifetime:.2f} epsilon are used or set aside" in sentence
    people.cancel(admitted)
    assert people.spending().used == pytest.approx(people.spent, abs=1e-9)


def test_the_control_looking_before_locking_overspends(tiny: Path) -> None:
    """The naive way: each looks whether there is room, then writes. Both find room, and the budget is overspent."""
    people = SpentPeople(tiny)
    people.allow(people.one)
    with scope(people.tenant):
        waiting = [job_like_the_others(people) for _number in range(2)]
    both_looked = threading.Barrier(2)

    def look_then_write() -> None:
        job = waiting.pop()
        with scope(people.tenant):
            privacy._require_room(people.spending(), people.mechanisms)
        both_looked.wait()
        with scope(people.tenant):
            account = PrivacyAccount.objects.of(people.tenant).get(merged_into=None)
            for one in people.mechanisms:
                chain.append(
                    chain.lock(people.tenant), job, account, kind=PrivacyEntry.Kind.RESERVED,
                    partition=one.partition, mechanism=accounting.to_record(one), rdp=accounting.rdp(one),
                )  # fmt: skip

    assert race(look_then_write, 2) == [None, None]
    assert people.spending().used > people.one


def job_like_the_others(people: SpentPeople) -> Job:
    """A row for the ledger's lines to name."""
    like = Job.objects.of(people.tenant).exclude(plan={}).order_by("-created_at")[0]
    like.pk, like.public_id = Job().pk, Job().public_id
    like.save(force_insert=True)
    return like
