"""Penalties, biases, masks and logprobs change or tell the choice exactly as asked."""

from __future__ import annotations

import math

import pytest
import torch

from modeling.serving.asks import Ask
from modeling.serving.conversations import read_sampling
from modeling.serving.sampling import Sampler, Sampling
from modeling.serving.wire import EngineRefusal

SCORES = torch.tensor([1.0, 3.0, 2.0, -50.0])


def picks(count: int, allowed: torch.Tensor | None = None, **how: object) -> list[int]:
    sampler = Sampler(Sampling(1, **how))  # type: ignore[arg-type]
    return [sampler.pick(SCORES, allowed) for _ in range(count)]


def test_it_works() -> None:
    assert picks(3, temperature=0.0) == [1, 1, 1]
    assert picks(3, temperature=0.0, logit_bias={1: -100.0}) == [2, 2, 2]
    assert picks(3, temperature=0.0, logit_bias={3: 100.0}) == [3, 3, 3]
    assert SCORES.tolist() == [1.0, 3.0, 2.0, -50.0]  # the model's scores are left as they are


def test_penalties() -> None:
    assert picks(4, temperature=0.0, presence_penalty=1.5) == [1, 2, 1, 1]
    assert picks(4, temperature=0.0, frequency_penalty=0.8) == [1, 1, 2, 1]
    assert picks(4, temperature=0.0, presence_penalty=-2.0) == [1, 1, 1, 1]


def test_only_what_is_allowed() -> None:
    allowed = torch.tensor([True, False, False, True])
    assert set(picks(50, allowed, temperature=0.0)) == {0}
    assert set(picks(200, allowed, temperature=2.0)) == {0}  # the other is too unlikely
    assert set(picks(200, torch.tensor([True, False, True, True]), top_p=0.99)) == {0, 2}
    only = torch.tensor([False, False, False, True])
    assert set(picks(20, only)) == set(picks(20, only, top_p=0.5)) == {3}


def test_shares() -> None:
    for how in ({"seed": 3}, {"seed": 3, "top_p": 0.9999999}):
        drawn = picks(4000, **how)
        for token, share in enumerate(torch.softmax(SCORES, 0).tolist()):
            assert abs(drawn.count(token) / 4000 - share) < 0.03
    assert picks(20, seed=5) == picks(20, seed=5) != picks(20, seed=6)


def test_logprobs() -> None:
    told = Sampler(Sampling(1, logprobs=2)).likely(SCORES, 0)
    wanted = torch.log_softmax(SCORES, 0).tolist()
    assert told.logprob == pytest.approx(wanted[0])
    assert [(one.token, one.logprob) for one in told.others] == [
        (1, pytest.approx(wanted[1])),
        (2, pytest.approx(wanted[2])),
    ]
    never = Sampler(Sampling(1, logprobs=0)).likely(torch.tensor([0.0, -math.inf]), 1)
    assert (never.logprob, never.others) == (-9999.0, ())


def read(**body: object) -> Sampling:
    return read_sampling(Ask("chat", "acme", body, 0.0), vocabulary=100)


def test_reading() -> None:
    assert read(logit_bias={"99": -1}, logprobs=True, top_logprobs=3).logit_bias == {99: -1.0}
    assert (read().logprobs, read(logprobs=True).logprobs, read(top_logprobs=5).logprobs) == (None, 0, None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"logit_bias": {"100": 1}}, "bad_bias"),
        ({"logit_bias": {"-1": 1}}, "bad_bias"),
        ({"logit_bias": {"1": 101}}, "bad_request"),
        ({"logit_bias": [1]}, "bad_request"),
        ({"frequency_penalty": math.nan}, "bad_request"),
        ({"presence_penalty": 3}, "bad_request"),
        ({"top_logprobs": "3", "logprobs": True}, "bad_request"),
    ],
)
def test_what_is_no_sampling_is_refused(body: dict[str, object], code: str) -> None:
    with pytest.raises(EngineRefusal) as refusal:
        read(**body)
    assert refusal.value.code == code
