"""Receipts of real small jobs: made with the model, checked by the verifier alone, and broken by every edit."""

from __future__ import annotations

import base64
import copy
import json
import os
import string
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from modeling.actions import receipts as actions
from modeling.core import accounting, canonical, receipts, verify
from modeling.core.receipts import BrokenReceipt
from modeling.models import ModelVersion
from tenants.scope import scope
from tests.make import People
from tests.modeling.clinic import started, train, uploaded, words_csv
from tests.modeling.finished import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(finished: Run) -> Run:
    return finished


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every leaf of a JSON value."""
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        return [path]
    return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]


def flipped(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        last = value[-1:] or "b"
        return value[:-1] + ("1" if last != "1" else "2")
    return "something"


def edited(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy with one leaf flipped."""
    made = copy.deepcopy(value)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = flipped(place[path[-1]])
    return made


def test_it_works(run: Run, tmp_path: Path) -> None:
    """In a fresh process, on files alone, with nothing of Django."""
    files = {"receipt": run.receipt, "card": run.card, "ledger": run.ledger}
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    keys = run.people.api("globex").get("/v1/receipt_keys").json()["data"]
    (tmp_path / "key.pem").write_text(keys[0]["pem"])
    script = (
        "import sys; from modeling.core.verify import main; code = main(sys.argv[1:]);"
        "assert not {'django', 'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    names = ["receipt.json", "--key", "key.pem", "--card", "card.json", "--ledger", "ledger.json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 5
    assert "Epsilon worked out again" in done.stdout


def test_what_a_receipt_says(run: Run) -> None:
    predicate = run.signed().predicate
    assert predicate["model"] == run.version.name
    assert predicate["data"]["commitment"] == run.job.commitment
    assert predicate["data"]["commitment"]["train"]["units"] == run.job.plan["shape"]["train_units"]
    assert float.fromhex(predicate["privacy"]["epsilon"]) == run.version.card["privacy"]["epsilon"]
    assert {one["name"] for one in predicate["privacy"]["mechanisms"]} >= {"train"}
    assert predicate["ledger"]["head"]["seq"] == predicate["ledger"]["entries"][-1]["seq"]
    assert predicate["recipe"]["epsilon"] == (8.0).hex()
    assert predicate["code"]["source"] == actions.SOURCE
    assert set(predicate["base"]["files"]) >= {"model.safetensors"}


def test_every_edit_of_the_statement_breaks_it(run: Run) -> None:
    statement = run.signed().statement
    paths = leaves(statement)
    assert len(paths) > 100
    for path in paths:
        envelope = {
            **run.receipt,
            "payload": base64.b64encode(canonical.encode(edited(statement, path))).decode(),
        }
        with pytest.raises(BrokenReceipt):
            verify.check_signature(envelope)


def test_every_edit_of_the_envelope_breaks_it(run: Run) -> None:
    for path in leaves(run.receipt):
        with pytest.raises(BrokenReceipt):
            verify.check_signature(edited(run.receipt, path))
    for key in run.receipt:
        with pytest.raises(BrokenReceipt):
            verify.check_signature({name: value for name, value in run.receipt.items() if name != key})
    for wrong in (None, [], "x", {**run.receipt, "more": 1}, {**run.receipt, "signatures": []}):
        with pytest.raises(BrokenReceipt):
            verify.check_signature(wrong)
    with pytest.raises(BrokenReceipt):
        verify.check_signature({**run.receipt, "payload": run.receipt["payload"] + "\n"})


def test_another_key_is_another_signer(run: Run) -> None:
    statement, own = run.signed().statement, run.signed().public_key
    other = receipts.private_key(receipts.new_key())
    forged = receipts.sign(statement, other)
    verify.check_signature(forged)  # whole in itself: only a pinned key tells them apart
    with pytest.raises(BrokenReceipt, match="another key"):
        verify.check_signature(forged, pinned=own)
    swapped = copy.deepcopy(run.receipt)
    swapped["signatures"][0]["public_key"] = forged["signatures"][0]["public_key"]
    swapped["signatures"][0]["keyid"] = forged["signatures"][0]["keyid"]
    with pytest.raises(BrokenReceipt):
        verify.check_signature(swapped)


@pytest.mark.parametrize(
    "path",
    [
        ("epsilon",),
        ("epsilon_replace_one",),
        ("delta",),
        ("mechanisms", 0, "sigma"),
        ("mechanisms", 0, "count"),
    ],
    ids=str,
)
def test_a_signed_lie_about_epsilon_is_found(run: Run, path: tuple[Any, ...]) -> None:
    """The signer itself cannot state less noise, fewer steps or a smaller epsilon than the others allow."""
    statement = copy.deepcopy(run.signed().statement)
    place = statement["predicate"]["privacy"]
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    place[path[-1]] = value * 2 if isinstance(value, int) else (0.5 * float.fromhex(value)).hex()
    with pytest.raises(BrokenReceipt):
        verify.check_epsilon(run.resigned(statement))


@pytest.mark.parametrize("delta", [1e-2, 0.9, 1.0])
def test_epsilon_cannot_be_made_small_by_a_large_delta(run: Run, delta: float) -> None:
    statement = copy.deepcopy(run.signed().statement)
    privacy = statement["predicate"]["privacy"]
    mechanisms = [accounting.from_record(record) for record in privacy["mechanisms"]]
    privacy["delta"] = delta.hex()
    for name, adjacency in verify.ADJACENCIES.items():
        found = accounting.epsilon(mechanisms, delta, adjacency=adjacency) if delta < 1 else 0.0
        privacy[name] = found.hex()
    with pytest.raises(BrokenReceipt, match="is larger than a run on"):
        verify.check_epsilon(run.resigned(statement))


def test_a_selection_of_hardly_any_run_buys_no_epsilon(run: Run) -> None:
    """An expected number of runs close to 0 once made a Renyi divergence negative, and epsilon 0."""
    statement = copy.deepcopy(run.signed().statement)
    privacy = statement["predicate"]["privacy"]
    for record in privacy["mechanisms"]:
        record["repeats"] = (1e-300).hex()
    for name in verify.ADJACENCIES:
        privacy[name] = (0.0).hex()
    with pytest.raises(BrokenReceipt, match="but the mechanisms give"):
        verify.check_epsilon(run.resigned(statement))


def test_a_signed_lie_about_the_ledger_is_found(run: Run) -> None:
    """Scaled alike, sigma and epsilon agree again; the ledger does not."""
    statement = copy.deepcopy(run.signed().statement)
    privacy = statement["predicate"]["privacy"]
    for record in privacy["mechanisms"]:
        record["sigma"] = (2 * float.fromhex(record["sigma"])).hex()
    lighter = [accounting.from_record(record) for record in privacy["mechanisms"]]
    delta = float.fromhex(privacy["delta"])
    privacy["epsilon"] = accounting.epsilon(lighter, delta).hex()
    privacy["epsilon_replace_one"] = accounting.epsilon(lighter, delta, adjacency="replace_one").hex()
    signed = run.resigned(statement)
    verify.check_epsilon(signed)
    with pytest.raises(BrokenReceipt, match="other mechanisms"):
        verify.check_ledger(signed, run.ledger)


def test_every_edit_of_the_ledger_is_found(run: Run) -> None:
    signed = run.signed()
    verify.check_ledger(signed, run.ledger)
    entries = run.ledger["entries"]
    for number, entry in enumerate(entries):
        for path in leaves(entry["hashed"]):
            changed = [
                *entries[:number],
                {**entry, "hashed": edited(entry["hashed"], path)},
                *entries[number + 1 :],
            ]
            with pytest.raises(BrokenReceipt):
                verify.check_ledger(signed, {"entries": changed})
        with pytest.raises(BrokenReceipt):
            verify.check_ledger(signed, {"entries": [*entries[:number], *entries[number + 1 :]]})
    swapped = [entries[1], entries[0], *entries[2:]]
    with pytest.raises(BrokenReceipt):
        verify.check_ledger(signed, {"entries": swapped})


def test_other_code_is_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modeling").mkdir()
    file = tmp_path / "modeling" / "one.py"
    file.write_text("sigma = 1\n")
    statement = copy.deepcopy(run.signed().statement)
    statement["predicate"]["code"]["source"] = receipts.source_digest(tmp_path)
    signed = run.resigned(statement)
    assert "is the code that ran" in verify.check_source(signed, tmp_path)
    file.write_text("sigma = 2\n")
    with pytest.raises(BrokenReceipt):
        verify.check_source(signed, tmp_path)


def test_a_card_with_another_number_is_found(run: Run) -> None:
    signed = run.signed()
    verify.check_card(signed, run.card)
    kept = {key: value for key, value in run.card.items() if key != "since"}
    for path in leaves(kept):
        with pytest.raises(BrokenReceipt):
            verify.check_card(signed, edited(kept, path))


def test_one_person_is_proven_to_be_in_the_data(run: Run, tiny: Path) -> None:
    alice = run.people.browser("alice")
    path = f"/t/{run.tenant.slug}/models/{run.version.short_id}/proof/"
    proof = alice.post(path, {"person": " Person 7 "}).json()
    assert verify.check_proof(run.signed(), proof).startswith("The 2 rows of this unit were")
    assert all(set(row) == {"text", "label"} for row in proof["rows"])
    for edit in leaves(proof):
        if edit != ("format",):
            with pytest.raises((BrokenReceipt, ValueError, KeyError, IndexError)):
                verify.check_proof(run.signed(), edited(proof, edit))
    assert alice.post(path, {"person": "nobody at all"}).status_code == 404
    assert run.people.browser("bob").post(path, {"person": "person 7"}).status_code == 403


def test_nonsense_files_end_in_a_sentence(run: Run, tmp_path: Path, capsys: Any) -> None:
    good = json.dumps(run.receipt)
    bad = tmp_path / "bad.json"
    for text in ("", "{", "[]", '{"payload": 1}', "[" * 100_000, good[:-20], good.replace('"keyid"', '"key"'),
                 '{"payload":"","payload":""}', "NaN", "\x00"):  # fmt: skip
        bad.write_text(text)
        assert verify.main([str(bad)]) == 1
        assert capsys.readouterr().out.startswith("FAIL  ")
    assert verify.main([str(tmp_path / "missing.json")]) == 1


def test_without_privacy_it_says_so(tiny: Path, people: People, acme: Any, api: Any) -> None:
    file = uploaded(api, acme, words_csv(300))
    job = train(acme, started(api, file, privacy={"mode": "off", "reason": "a test"})["id"])
    assert job.state == "succeeded", job.error
    with scope(acme):
        version = ModelVersion.objects.of(acme).get(job=job)
    signed = verify.check_signature(api.get(f"/v1/models/{version.name}/receipt").json())[0]
    assert "PRIVACY WAS OFF" in verify.check_epsilon(signed)
    assert signed.predicate["privacy"]["epsilon"] is None
    ledger = api.get("/v1/privacy/ledger", format="chain").json()
    assert "whole" in verify.check_ledger(signed, ledger)


def test_the_key_file_is_its_owners_alone(settings: Any, tmp_path: Path) -> None:
    settings.RECEIPT_KEY_FILE = tmp_path / "kept" / "receipt.key"
    first = receipts.public_part(actions.signing_key())
    assert receipts.public_part(actions.signing_key()) == first
    assert settings.RECEIPT_KEY_FILE.stat().st_mode & 0o777 == 0o600
    settings.RECEIPT_KEY_FILE.chmod(0o644)
    with pytest.raises(PermissionError):
        actions.signing_key()


def test_an_older_key_stays_known(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    settings.RECEIPT_KEY_FILE = tmp_path / "first.key"
    first = actions.public_keys()[0]["keyid"]
    settings.RECEIPT_KEY_FILE = tmp_path / "second.key"
    known = actions.public_keys()
    assert [one["is_current"] for one in known] == [True, False]
    assert known[1]["keyid"] == first


def test_no_random_edit_of_the_file_passes(run: Run, tmp_path: Path, capsys: Any) -> None:
    """One to three random characters changed, put in or taken out, 400 times: the file fails, or says the very same."""
    random = Random(20_480)
    good = json.dumps(run.receipt)
    own = run.signed().public_key
    passed = 0
    for _round in range(400):
        text = list(good)
        for _edit in range(random.randint(1, 3)):
            at = random.randrange(len(text))
            text[at : at + random.randint(0, 1)] = random.choice(["", random.choice(string.printable)])
        edited_text = "".join(text)
        try:
            same = canonical.decode(edited_text) == run.receipt
            signed = verify.check_signature(canonical.decode(edited_text), pinned=own)[0]
        except (BrokenReceipt, ValueError, RecursionError):
            continue
        assert same
        assert signed.statement == run.signed().statement
        passed += 1
    assert passed < 80  # one edit in nine changes no character, and a blank changes nothing
