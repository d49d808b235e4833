"""Checks a receipt on any machine: signature, epsilon worked out again, ledger, card, artefact; needs only the core.

python -m modeling.core.verify receipt.json [--key FILE] [--card card.json] [--ledger ledger.json] [--artefact FILE]
                                            [--proof proof.json] [--source FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from modeling.core import accounting, canonical, commitment, receipts
from modeling.core.receipts import ARTEFACT, CARD, BrokenReceipt, Signed
from modeling.core.types import CoreError, Mechanism

TOLERANCE = 0.01  # between two versions of the accountant's library
GENESIS = "0" * 64
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, RecursionError)
ADJACENCIES: dict[str, accounting.Adjacency] = {
    "epsilon": "zero_out",
    "epsilon_replace_one": "replace_one",
}


def check_signature(envelope: Any, *, pinned: bytes | None = None) -> tuple[Signed, str]:
    """The opened envelope, and a sentence about its key; raises BrokenReceipt."""
    signed = receipts.open_envelope(envelope, pinned=pinned)
    name = signed.key_id[:16]
    if pinned is not None:
        return signed, f"Signed by the key you trust, {name}…; nothing was changed since."
    return signed, (
        f"Signed by key {name}…, which the receipt itself brings: nothing was changed since it was signed. "
        "Name the key you trust with --key to know who signed."
    )


def check_epsilon(signed: Signed) -> str:
    """Epsilon from the mechanisms that ran, under both adjacencies, beside what is stated; raises BrokenReceipt."""
    privacy = signed.predicate["privacy"]
    if privacy["mode"] == "off":
        if privacy["mechanisms"] or any(privacy[name] is not None for name in ADJACENCIES):
            raise BrokenReceipt("A run without privacy cannot state an epsilon.")
        return "PRIVACY WAS OFF: this run has no bound, and may reveal the people in its training data."
    if privacy["mode"] != "on" or not privacy["mechanisms"]:
        raise BrokenReceipt("The receipt does not say which mechanisms ran.")
    delta = float.fromhex(privacy["delta"])
    units = int(signed.predicate["data"]["commitment"]["train"]["units"])
    largest = accounting.delta_for(units) * (1 + 1e-9)  # another machine's powers may differ in the last bit
    if not 0 < delta <= largest:
        raise BrokenReceipt(f"Delta {delta:.3g} is larger than a run on {units:,} units may have.")
    mechanisms = [_mechanism(record) for record in privacy["mechanisms"]]
    words = []
    for name, adjacency in ADJACENCIES.items():
        stated, found = (
            float.fromhex(privacy[name]),
            accounting.epsilon(mechanisms, delta, adjacency=adjacency),
        )
        if not abs(found - stated) <= TOLERANCE:
            raise BrokenReceipt(
                f"{name} is stated as {stated:.4f}, but the mechanisms give {found:.4f} at delta {delta:.3g}."
            )
        words.append(f"{found:.4f} ({adjacency.replace('_', '-')})")
    return (
        f"Epsilon worked out again from {len(mechanisms)} mechanisms at delta {delta:.3g}: "
        f"{' and '.join(words)}, as stated."
    )


def _mechanism(record: dict[str, Any]) -> Mechanism:
    """A stated mechanism, if it can be one."""
    found = accounting.from_record(record)
    numbers = (found.sigma, found.clip, found.sampling_rate, found.repeats)
    sound = all(map(math.isfinite, numbers)) and found.sigma > 0 and found.clip > 0 and found.repeats >= 0
    if not sound or not 0 < found.sampling_rate <= 1 or not 0 < found.count <= int(record["planned"]):
        raise BrokenReceipt(f"The mechanism {found.name} has numbers that no run can have.")
    if found.partition not in ("train", "held_out"):
        raise BrokenReceipt(f"The mechanism {found.name} names no known part of the people.")
    return found


def check_card(signed: Signed, card: Any) -> str:
    """Whether a card is the one that was signed; what is told of later days ("since") is left aside."""
    kept = {key: value for key, value in card.items() if key != "since"}
    if canonical.digest(kept) != signed.subject(CARD):
        raise BrokenReceipt("The card is not the one that was signed.")
    return "The card is the one that was signed."


def check_artefact(signed: Signed, file: Path) -> str:
    """Whether a weights file is the one that was signed."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != signed.subject(ARTEFACT):
        raise BrokenReceipt(f"{file.name} is not the artefact that was signed.")
    return f"The artefact {file.name} is the one that was signed."


def check_ledger(signed: Signed, ledger: Any) -> str:
    """Recompute an exported ledger's hashes and find the receipt's entries, head and mechanisms in it."""
    chain = list(_chain(ledger["entries"]))
    stated = signed.predicate["ledger"]
    head = stated["head"]
    if not 1 <= head["seq"] <= len(chain) or chain[head["seq"] - 1]["entry_hash"] != head["hash"]:
        raise BrokenReceipt("The ledger is not the one whose head was signed: it was cut or written anew.")
    if not stated["entries"]:
        raise BrokenReceipt("The receipt names no entry of the ledger.")
    own = []
    for one in stated["entries"]:
        if not 1 <= one["seq"] <= head["seq"] or chain[one["seq"] - 1]["entry_hash"] != one["hash"]:
            raise BrokenReceipt(f"Entry {one['seq']} of the ledger is not the one that was signed.")
        own.append(chain[one["seq"] - 1]["hashed"])
    if len({entry["job"] for entry in own}) != 1:
        raise BrokenReceipt("The receipt names entries of different jobs.")
    missing = [
        e for e in chain[: head["seq"]] if e["hashed"]["job"] == own[0]["job"] and e["hashed"] not in own
    ]
    if missing:
        raise BrokenReceipt("The ledger has entries of this job that the receipt does not name.")
    _compare_mechanisms(signed.predicate["privacy"], own)
    return f"The ledger of {len(chain)} entries is whole, and holds the {len(own)} entries of this run."


def _chain(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    previous = GENESIS
    for number, entry in enumerate(entries, start=1):
        hashed = entry["hashed"]
        if hashed["seq"] != number or hashed["previous_hash"] != previous:
            raise BrokenReceipt(f"Entry {number} of the ledger does not follow the entry before it.")
        previous = hashlib.sha256(canonical.encode(hashed)).hexdigest()
        if previous != entry["entry_hash"]:
            raise BrokenReceipt(f"Entry {number} of the ledger was changed.")
        yield entry


def _compare_mechanisms(privacy: dict[str, Any], own: list[dict[str, Any]]) -> None:
    """What was reserved and charged for the job must be what the receipt says ran."""
    if privacy["mode"] == "off":
        if any(entry["kind"] != "unbounded" for entry in own):
            raise BrokenReceipt("The ledger holds private steps of a run that the receipt calls not private.")
        return
    reserved = {
        entry["mechanism"]["name"]: accounting.from_record(entry["mechanism"])
        for entry in own
        if entry["kind"] == "reserved"
    }
    charged: Counter[str] = Counter()
    for entry in own:
        if entry["kind"] == "charged":
            charged[entry["mechanism"]["name"]] += entry["mechanism"]["count"]
    ran = {name: replace(one, count=charged[name]) for name, one in reserved.items() if charged[name]}
    stated = {record["name"]: accounting.from_record(record) for record in privacy["mechanisms"]}
    if ran != stated:
        raise BrokenReceipt("The ledger charged other mechanisms than the receipt states.")


def check_proof(signed: Signed, proof: Any) -> str:
    """Whether one unit's rows, with their salt, are among those that were signed."""
    data = signed.predicate["data"]["commitment"]
    side = data[proof["side"]]
    if proof["job"] != signed.predicate["job"] or proof["size"] != side["units"]:
        raise BrokenReceipt("The proof belongs to another run.")
    if commitment.root_of_proof(proof) != side["root"]:
        raise BrokenReceipt("These rows are not among those that were signed.")
    what = "trained on" if proof["side"] == "train" else "held out"
    return f"The {len(proof['rows'])} rows of this unit were {what}: unit {proof['index'] + 1} of {proof['size']}."


def check_source(signed: Signed, folder: Path) -> str:
    """Whether a checkout is the code that was signed."""
    if receipts.source_digest(folder) != signed.predicate["code"]["source"]:
        raise BrokenReceipt(f"The code in {folder} is not the code that ran.")
    return f"The code in {folder} is the code that ran."


def main(arguments: list[str]) -> int:
    """Print a sentence per check; 0 when all hold, 1 at the first that does not."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling.core.verify", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("receipt", type=Path)
    for name in ("key", "card", "ledger", "artefact", "proof", "source"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args(arguments)
    try:
        for sentence in _checks(options):
            print(f"ok    {sentence}")
    except CoreError as error:
        print(f"FAIL  {error.message}")
        return 1
    return 0


def _checks(options: argparse.Namespace) -> Iterator[str]:
    pinned = _read(options.key, receipts.public_key) if options.key else None
    signed, sentence = check_signature(_read(options.receipt, canonical.decode), pinned=pinned)
    yield sentence
    try:
        yield _subject(signed)
        yield check_epsilon(signed)
        if options.card:
            yield check_card(signed, _read(options.card, canonical.decode))
        if options.ledger:
            yield check_ledger(signed, _read(options.ledger, _ledger))
        if options.artefact:
            yield check_artefact(signed, options.artefact)
        if options.proof:
            yield check_proof(signed, _read(options.proof, canonical.decode))
        if options.source:
            yield check_source(signed, options.source)
    except OSError as error:
        raise BrokenReceipt(f"{error.filename} cannot be read.") from None
    except _MALFORMED:
        raise BrokenReceipt("A file does not have the form it should have.") from None


def _subject(signed: Signed) -> str:
    run, data = signed.predicate["run"], signed.predicate["data"]
    roots = data["commitment"]
    return (
        f"{signed.predicate['model']}, finished {run['finished_at']}: {roots['train']['units']} units trained on and "
        f"{roots['held_out']['units']} held out, committed to by {roots['train']['root'][:16]}…"
    )


def _ledger(content: bytes) -> Any:
    """An exported ledger: one document, or its entries as JSON lines."""
    try:
        found = canonical.decode(content)
    except ValueError:
        return {"entries": [canonical.decode(line) for line in content.splitlines() if line.strip()]}
    return found if "entries" in found else {"entries": [found]}


def _read(file: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(file.read_bytes())
    except OSError:
        raise BrokenReceipt(f"{file} cannot be read.") from None
    except (ValueError, RecursionError):
        raise BrokenReceipt(f"{file} is not the kind of file that belongs here.") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
