"""The device of a plan's name, and bfloat16 where it pays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from modeling.core import device
from modeling.core.types import CannotTrain

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    device.training_dtype.cache_clear()
    yield
    device.training_dtype.cache_clear()


@pytest.mark.parametrize(
    ("has_it", "short", "expected"),
    [(True, 0.5, torch.bfloat16), (True, 0.95, torch.float32), (False, 0.5, torch.float32)],
    ids=["twice as fast", "hardly faster", "emulated"],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, short: float, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_it, raising=False)
    monkeypatch.setattr(device, "_product_seconds", lambda dtype: short if dtype == torch.bfloat16 else 1.0)
    assert device.training_dtype(CPU) == expected


def test_the_measurement_is_a_time() -> None:
    assert 0 < device._product_seconds(torch.float32) < 10


def test_a_gpu_computes_in_bfloat16_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        device.training_dtype.cache_clear()
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert device.training_dtype(torch.device("cuda", 0)) == expected


def test_each_rank_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose("auto") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.choose("cuda") == torch.device("cuda", 3)
    assert device.choose("cpu") == CPU


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose("auto") == CPU
    with pytest.raises(CannotTrain) as refusal:
        device.choose("cuda")
    assert refusal.value.code == "no_gpu"
