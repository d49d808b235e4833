"""No internal number reaches an event: fields are declared, what is internal is left out, what is unknown refused."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.actions import events, telling
from modeling.actions.telling import FIELDS, INTERNAL, OTHERS, Told, Undisclosed, of_event, public
from modeling.core.types import Charge, Checkpoint, Event, HeldOut, Phase, Progress, Trained
from modeling.models import Job, JobEvent
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train

TENSORS = {"weights": np.full(3, 0.123456789)}
NUMBERS = re.compile(r"\d+(?:\.\d+)?")


def test_every_field_of_every_event_is_declared() -> None:
    assert set(FIELDS) == set(get_args(Event))
    for kind, declared in FIELDS.items():
        assert set(declared) == {one.name for one in fields(kind)}, kind


floats = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 10**6)
any_event = st.one_of(
    st.builds(Progress, whole, whole, st.none() | floats, floats, floats, floats),
    st.builds(HeldOut, whole, floats, floats, whole),
    st.builds(Phase, st.just("embedding"), whole, whole, floats),
    st.builds(Charge, st.just("train"), whole, whole),
    st.builds(Checkpoint, whole, st.just(TENSORS)),
    st.builds(Trained, st.just(TENSORS), st.just({}), st.just({"accuracy": 0.5}), whole, floats),
)


@given(any_event)
def test_what_is_internal_is_never_told(event: Any) -> None:
    told = of_event(event).facts
    for name, kind in FIELDS[type(event)].items():
        assert (name in told) is (kind is not INTERNAL)


@given(st.dictionaries(st.text(min_size=1), floats, min_size=1))
def test_what_is_not_declared_is_refused(facts: dict[str, float]) -> None:
    unknown = {name: value for name, value in facts.items() if name not in OTHERS}
    for make in (lambda: public(**unknown), lambda: Told({f"x {name}": 0 for name in unknown})):
        if unknown:
            with pytest.raises(Undisclosed):
                make()
    for hidden in ("loss", "train_loss", "gradient_norm", "clip_fraction", "tensors", "batch"):
        with pytest.raises(Undisclosed):
            public(**{hidden: 1.0})
        with pytest.raises(Undisclosed):
            Told({hidden: 1.0})


def test_an_event_takes_nothing_but_told_facts() -> None:
    assert events.announce.__annotations__["data"] == "Told"
    assert events.announce.__kwdefaults__["data"] is telling.NOTHING


def test_a_whole_run_tells_declared_facts_and_no_other_number(
    api: Any, acme: Tenant, words_file: str
) -> None:
    """Words too: each number in the sentence of a progress event is one of its declared facts."""
    done = train(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    with scope(acme):
        told = list(JobEvent.objects.of(acme).filter(job=done))
    by_kind = {kind: [event for event in told if event.kind == kind] for kind in JobEvent.Kind.values}
    assert by_kind["metrics"]
    assert by_kind["held_out"]
    allowed = {
        "metrics": {*FIELDS[Progress], "has_checkpoint"},
        "held_out": set(FIELDS[HeldOut]),
        "phase": {*FIELDS[Phase]},
        "state": set(OTHERS),
        "message": set(OTHERS),
        "checkpoint": set(),
    }
    for kind, events_of_kind in by_kind.items():
        for event in events_of_kind:
            assert set(event.data) <= allowed[kind], (kind, event.data)
            if kind in ("metrics", "held_out", "phase"):
                known = [value for value in event.data.values() if isinstance(value, int | float)]
                for number in NUMBERS.findall(event.message):
                    assert any(math.isclose(float(number), value, abs_tol=0.0006) for value in known)


def test_the_row_that_pages_read_holds_the_same_facts(api: Any, acme: Tenant, words_file: str) -> None:
    done = train(acme, started(api, words_file)["id"])
    kept = set(row_of(acme, done.public_id).progress)
    assert kept <= {*FIELDS[Progress], "has_checkpoint", "held_out", "phase"}
