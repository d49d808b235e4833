"""Every engine gives torch's embeddings, whoever shares the batch, and a slot shows nothing of its last tenant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.serving.bank import Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_choice import NAMES
from modeling.serving.encoder_engines import EncoderEngine, GraphEncoder
from modeling.serving.store import CacheKey
from tests.core.tiny_text import make_base
from tests.serving import encoders
from tests.serving.encoders import QUERY_VALUE, alone, factors, filled, texts, worst

EXACT = 1e-4  # float32
HALF = 2e-2  # bfloat16: a number of a unit vector of 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert(make_base(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def made(model: Bert) -> dict[str, EncoderEngine]:
    return encoders.engines(model)


@pytest.fixture(params=NAMES)
def engine(made: dict[str, EncoderEngine], request: pytest.FixtureRequest) -> EncoderEngine:
    return made[request.param]


def allowed(engine: EncoderEngine) -> float:
    return HALF if engine.table_dtype == torch.bfloat16 else EXACT


def test_it_works(engine: EncoderEngine, made: dict[str, EncoderEngine], model: Bert) -> None:
    rows = texts(model, 40)
    found = engine.embed(rows)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert worst(found, made["torch"].embed(rows)) < allowed(engine)


def test_a_row_in_a_mixed_batch_equals_the_row_alone(
    engine: EncoderEngine, made: dict[str, EncoderEngine], model: Bert
) -> None:
    rows = texts(model, 60, seed=1)
    small = filled(model, engine, 8, *(factors(model, 8, seed, QUERY_VALUE) for seed in range(6)))
    large = filled(model, engine, 16, *(factors(model, 16, seed) for seed in (7, 8)))
    mixes = [
        Mix(small, torch.tensor([(1 + n % 6) * (n % 3 != 0) for n in range(60)])),
        Mix(large, torch.tensor([(1 + n % 2) * (n % 6 == 0) for n in range(60)])),
    ]
    found = engine.embed(rows, mixes)
    assert worst(found, alone(engine, rows, mixes)) < allowed(engine)
    plain = engine.embed(rows)
    changed = np.abs(found - plain).max(axis=1) > 0.02
    assert changed.tolist() == [n % 3 != 0 or n % 6 == 0 for n in range(60)]
    torch_engine = made["torch"]
    exact = [
        Mix(filled(model, torch_engine, 8, *(factors(model, 8, n, QUERY_VALUE) for n in range(6))), mixes[0].slots),
        Mix(filled(model, torch_engine, 16, *(factors(model, 16, n) for n in (7, 8))), mixes[1].slots),
    ]  # fmt: skip
    reference = torch_engine.embed(rows, exact)
    if engine.table_dtype == torch.float32:
        assert worst(found, reference) < EXACT
    assert (found * reference).sum(axis=1).min() > 0.999


async def put(bank: SlotBank, tenant: str, tensors: Mapping[str, torch.Tensor]) -> int:
    async def read() -> Mapping[str, torch.Tensor]:
        return tensors

    return await bank.pin(CacheKey(tenant, "v", tenant.encode()), read)


@pytest.mark.asyncio
@pytest.mark.parametrize("purged", [False, True])
async def test_a_reused_slot_shows_nothing_of_its_last_tenant(
    engine: EncoderEngine, model: Bert, *, purged: bool
) -> None:
    rows = texts(model, 12, seed=2)
    bank = SlotBank(model.lora_shapes(16), slots=1, dtype=engine.table_dtype)
    first = await put(bank, "globex", factors(model, 16, 1))
    theirs = engine.embed(rows, [Mix(bank, torch.full((12,), first))])
    bank.release(first)
    if purged:
        bank.purge("globex", None)
        left = engine.embed(rows, [Mix(bank, torch.full((12,), first))])
        assert worst(left, engine.embed(rows)) < allowed(engine)  # the slot is empty
    ours = factors(model, 4, 2, QUERY_VALUE)  # a smaller rank, fewer modules
    second = await put(bank, "acme", ours)
    assert second == first
    found = engine.embed(rows, [Mix(bank, torch.full((12,), second))])
    fresh = SlotBank(model.lora_shapes(16), slots=1, dtype=engine.table_dtype)
    slot = await put(fresh, "acme", ours)
    assert worst(found, engine.embed(rows, [Mix(fresh, torch.full((12,), slot))])) == 0
    assert worst(found, theirs) > 0.05  # the control: there was something to leak


def test_a_new_module_is_served_by_torch_until_its_graph_is_there(
    model: Bert, made: dict[str, EncoderEngine]
) -> None:
    engine = GraphEncoder(model, encoders.backend("openvino-f32"), encoders.SIDE)
    engine.adapt(encoders.modules(model, QUERY_VALUE))
    rows = texts(model, 9, seed=3)
    mix = Mix(filled(model, engine, 8, factors(model, 8, 5)), torch.tensor([0, 1, 1] * 3))
    before = engine.embed(rows, [mix])
    encoders.SIDE.submit(int).result()  # the compilation was submitted before this
    after = engine.embed(rows, [mix])
    reference = made["torch"].embed(rows, [mix])
    assert worst(before, reference) < EXACT
    assert worst(after, reference) < EXACT
    assert worst(after, engine.embed(rows)) > 0.05


class Failing(GraphEncoder):
    """Its graph no longer runs."""

    def _run(self, session, rows, slots, *, rank):  # type: ignore[no-untyped-def]
        raise RuntimeError("out of memory")


def test_a_batch_on_which_the_graph_fails_is_served_by_torch(
    model: Bert, made: dict[str, EncoderEngine]
) -> None:
    engine = Failing(model, encoders.backend("openvino-f32"), encoders.SIDE)
    rows = texts(model, 5)
    assert worst(engine.embed(rows), made["torch"].embed(rows)) < EXACT


def test_a_bank_of_another_type_is_served_by_torch(
    engine: EncoderEngine, made: dict[str, EncoderEngine], model: Bert
) -> None:
    rows = texts(model, 9, seed=4)
    other = made["openvino-bf16" if engine.table_dtype == torch.float32 else "torch"]
    bank = filled(model, other, 8, factors(model, 8, 6))
    mix = Mix(bank, torch.tensor([1] * 9))
    assert worst(engine.embed(rows, [mix]), made["torch"].embed(rows, [mix])) < EXACT


def test_a_version_with_layers_of_its_own_shares_the_rest(model: Bert) -> None:
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    changed = model.changed({"encoder.layer.0.attention.self.key.weight": weight})
    assert (
        changed.own_bytes(model) == 2 * 3 * 32 * 32 * 4
    )  # the fused query, key and value, and their packed form
    assert worst(changed.embed([[5, 6, 7]]).numpy(), model.embed([[5, 6, 7]]).numpy()) > 1e-3


def test_the_weights_are_read_from_a_folder_that_nobody_can_write(tmp_path: Path) -> None:
    folder = make_base(tmp_path)
    before = sorted(folder.iterdir())
    folder.chmod(0o500)
    GraphEncoder(Bert(folder), encoders.backend("openvino-f32"), encoders.SIDE).embed([[5, 6]])
    assert sorted(folder.iterdir()) == before
