"""Downloads: each kind of model written out, loaded in a process without this package, gives the same outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling.core import artifacts, bases, export, lora
from modeling.core.chat_adapter import Adapter
from modeling.core.encoder import Encoder
from modeling.core.export_peft import CannotExport, lora_files
from modeling.core.flatten import flatten
from modeling.core.predictor import classify_probabilities
from modeling.core.recommend_scores import ItemModel, recommend_scores
from modeling.core.table_features import TableFeatures, load_features
from modeling.core.table_predictor import TableModel
from modeling.core.types import Tensors
from tests.core import tiny_chat, tiny_text

TEXTS = ["word1 word2 word3", "word21 word22", "word41 word50 word51 word52 word53", "", "word9"]
IDS = [3, 7, 11, 4, 9, 5, 11, 4, 8, 6, 2]
INVOCATION = [11, 4]
HISTORY = ["i3", "i4", "unknown"]
Config = dict[str, Any]

# Loads every folder it is given; nothing of ours may be there.
READER = """
import importlib.util, json, sys
import numpy as np, torch

def module_of(folder):
    spec = importlib.util.spec_from_file_location("predict_" + folder.rsplit("/", 1)[-1], folder + "/predict.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

given = json.loads(sys.argv[1])
for folder, kind in given["folders"].items():
    predict = module_of(folder)
    if kind == "text":
        found = predict.probabilities(given["texts"])
    elif kind == "rows":
        answers = predict.predict_rows(given["rows"])
        found = [list(one.get("probabilities", one).values()) for one in answers]
    elif kind == "items":
        found = [score for _, score in predict.recommend(given["history"], k=5)]
    else:
        _, model = predict.load_chat()
        with torch.inference_mode():
            found = model(input_ids=torch.tensor([given["ids"]])).logits[0].numpy()
    np.save(folder + "/found.npy", np.asarray(found))
assert not [name for name in sys.modules if name.split(".")[0] in ("modeling", "django", "opacus")]
"""


def text_parts(models: Path, **more: Any) -> tuple[Tensors, Config]:
    random = np.random.default_rng(1)
    tensors: Tensors = {
        "head.weight": random.normal(size=(3, 32)).astype(np.float32),
        "head.bias": random.normal(size=3).astype(np.float32),
    }
    config = {"task": "classification", "base": "minilm-l6", "method": "head", "labels": ["a", "b", "c"]}
    return tensors, {**config, "temperature": 0.7, **more}


def low_rank(shapes: dict[str, tuple[int, int]], rank: int) -> Tensors:
    """Random adapters, large enough to be seen."""
    random = np.random.default_rng(2)
    found: Tensors = {}
    for path, (wide, out) in shapes.items():
        found[f"lora.{path}.A"] = random.normal(size=(rank, wide), scale=0.5).astype(np.float32)
        found[f"lora.{path}.B"] = random.normal(size=(out, rank), scale=0.5).astype(np.float32)
    return found


def encoder_of(models: Path) -> Encoder:
    made = Encoder(bases.path(models, "minilm-l6"))
    made.dtype = torch.float32
    return made


def text_head(models: Path) -> tuple[Tensors, Config, Any]:
    tensors, config = text_parts(models)
    return tensors, config, classify_probabilities(tensors, config, encoder_of(models).embed_all(TEXTS))


def text_labels(models: Path) -> tuple[Tensors, Config, Any]:
    tensors, config = text_parts(models, multi_label=True)
    return tensors, config, classify_probabilities(tensors, config, encoder_of(models).embed_all(TEXTS))


def text_lora(models: Path) -> tuple[Tensors, Config, Any]:
    tensors, config = text_parts(models, method="lora", rank=4, alpha=8.0)
    encoder = encoder_of(models)
    shapes = {
        path: (module.in_features, module.out_features)
        for path, module in encoder.model.named_modules()
        if path.endswith(("query", "value"))
    }
    tensors |= low_rank(shapes, 4)
    lora.attach_artifact(encoder.model, tensors, config)
    return tensors, config, classify_probabilities(tensors, config, encoder.embed_all(TEXTS))


def text_full(models: Path) -> tuple[Tensors, Config, Any]:
    tensors, config = text_parts(models, method="full")
    encoder = encoder_of(models)
    random = np.random.default_rng(3)
    trained = {
        name: value.numpy() + random.normal(size=value.shape, scale=0.1).astype(np.float32)
        for name, value in encoder.model.named_parameters()
        if "layer.1" in name
    }
    encoder.model.load_state_dict(
        {name: torch.from_numpy(value) for name, value in trained.items()}, strict=False
    )
    tensors |= {f"full.{name}": value for name, value in trained.items()}
    return tensors, config, classify_probabilities(tensors, config, encoder.embed_all(TEXTS))


def items(models: Path) -> tuple[Tensors, Config, Any]:
    random = np.random.default_rng(4)
    tensors: Tensors = {
        "items.B": random.normal(size=(20, 6)).astype(np.float32),
        "items.features": random.normal(size=(20, 6)).astype(np.float32),
        "items.log_p": random.normal(size=20).astype(np.float32),
        "direction": random.normal(size=6).astype(np.float32),
    }
    config = {
        "task": "recommendation",
        "base": "minilm-l6",
        "method": "ssr",
        "items": [f"i{n}" for n in range(20)],
    }
    scores = recommend_scores(ItemModel(tensors, config), history=HISTORY, k=5)
    return tensors, config, np.array([score for _, score in scores])


FEATURES = [
    {"name": "age", "kind": "number", "low": 0.0, "high": 120.0, "categories": []},
    {"name": "ward", "kind": "category", "low": 0.0, "high": 0.0, "categories": ["a", "b"]},
]
ROWS = [{"age": 41, "ward": "a"}, {"age": "7,5", "ward": "z"}, {"ward": "b"}, {"age": 1e9}]


def table(tensors_of: Callable[[int], Tensors], **more: Any) -> tuple[Tensors, Config, Any]:
    config = {"task": "classification", "base": "tabular", "method": "additive", "labels": ["no", "yes"],
              "features": FEATURES, "temperature": 1.4, **more}  # fmt: skip
    width = TableFeatures(load_features(FEATURES)).width
    tensors = tensors_of(width)
    model = TableModel(tensors, config)
    cells = {name: [row.get(name) for row in ROWS] for name in ("age", "ward")}
    if model.is_regression:
        return tensors, config, np.array([list(one.values()) for one in model.values(cells, len(ROWS))])
    return tensors, config, model.probabilities(cells, len(ROWS))


def linear(outputs: int) -> Callable[[int], Tensors]:
    random = np.random.default_rng(6)
    return lambda width: {
        "head.weight": random.normal(size=(outputs, width)).astype(np.float32),
        "head.bias": random.normal(size=outputs).astype(np.float32),
    }


def network(width: int) -> Tensors:
    random = np.random.default_rng(7)
    shapes = {"hidden.weight": (5, width), "hidden.bias": (5,), "out.weight": (2, 5), "out.bias": (2,)}
    return {f"network.{name}": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def table_linear(models: Path) -> tuple[Tensors, Config, Any]:
    return table(linear(2))


def table_network(models: Path) -> tuple[Tensors, Config, Any]:
    return table(network, method="network")


def table_number(models: Path) -> tuple[Tensors, Config, Any]:
    target = {"name": "cost", "kind": "number", "low": 10.0, "high": 500.0, "categories": []}
    return table(linear(1), task="regression", labels=[], target=target, spread=0.2)


def chat_model(models: Path) -> Any:
    from transformers import AutoModelForCausalLM

    folder = str(bases.path(models, "smollm2-135m"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits_of(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([IDS])).logits[0].numpy()


def chat_final_hidden(models: Path) -> tuple[Tensors, Config, Any]:
    model, adapter = chat_model(models), Adapter(tiny_chat.WIDTH)
    adapter.flat += 0.2 * torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        hidden = model.base_model(input_ids=torch.tensor([IDS])).last_hidden_state[0]
        expected = (adapter.apply(hidden) @ model.get_output_embeddings().weight.T).numpy()
    config = {"task": "chat", "base": "smollm2-135m", "method": "final_hidden", "rank": adapter.rank}
    return adapter.tensors(), config, expected


def chat_shapes(model: Any, first: int = 0) -> dict[str, tuple[int, int]]:
    return {
        path: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers." in path and int(path.split(".")[2]) >= first
    }


def chat_lora(models: Path) -> tuple[Tensors, Config, Any]:
    model = chat_model(models)
    config = {"task": "chat", "base": "smollm2-135m", "method": "lora", "rank": 4, "alpha": 6.0}
    tensors = low_rank(chat_shapes(model), 4)
    lora.attach_artifact(model, tensors, config)
    return tensors, config, logits_of(model)


def chat_top_layers(models: Path) -> tuple[Tensors, Config, Any]:
    """The reference: an adapter that adds nothing before the last invocation, written with hooks."""
    model = chat_model(models)
    config = {"task": "chat", "base": "smollm2-135m", "method": "top_layers", "rank": 4, "alpha": 6.0}
    tensors = low_rank(chat_shapes(model, first=1), 4)
    opens = max(at for at in range(len(IDS)) if IDS[at : at + 2] == INVOCATION)
    active = (torch.arange(len(IDS)) >= opens).float()[None, :, None]
    for path in chat_shapes(model, first=1):
        down, up = (torch.from_numpy(tensors[f"lora.{path}.{letter}"]) for letter in "AB")

        def add(module: Any, given: Any, out: Any, down: Any = down, up: Any = up) -> Any:
            return out + active * 1.5 * (given[0] @ down.T @ up.T)

        model.get_submodule(path).register_forward_hook(add)
    return tensors, {**config, "invocation": INVOCATION}, logits_of(model)


KINDS: dict[str, tuple[str, Callable[[Path], tuple[Tensors, Config, Any]]]] = {
    "text_head": ("text", text_head),
    "text_labels": ("text", text_labels),
    "text_lora": ("text", text_lora),
    "text_full": ("text", text_full),
    "items": ("items", items),
    "table_linear": ("rows", table_linear),
    "table_network": ("rows", table_network),
    "table_number": ("rows", table_number),
    "chat_final_hidden": ("chat", chat_final_hidden),
    "chat_lora": ("chat", chat_lora),
    "chat_top_layers": ("chat", chat_top_layers),
}


def write_out(folder: Path, tensors: Tensors, config: Config, base: Path | None) -> None:
    content = artifacts.dump(tensors, config)
    for file in export.files(content, base, source="a/base", with_base=True):
        place = folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"".join(file.blocks()))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any, Path]]:
    """Kind -> (what our code computes, what the download computes elsewhere, its folder)."""
    models = tiny_chat.write_models(tmp_path_factory.mktemp("models"))
    tiny_text.make_base(models)
    place = tmp_path_factory.mktemp("downloads")
    expected, folders = {}, {}
    for name, (kind, make) in KINDS.items():
        tensors, config, expected[name] = make(models)
        base = None if config["base"] == "tabular" else bases.path(models, config["base"])
        write_out(place / name, tensors, config, base)
        folders[str(place / name)] = kind
    given = {"folders": folders, "texts": TEXTS, "ids": IDS, "history": HISTORY, "rows": ROWS}
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, json.dumps(given)],
        cwd=place, env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: (expected[name], np.load(place / name / "found.npy"), place / name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_it_works(loaded: dict[str, tuple[Any, Any, Path]], name: str) -> None:
    expected, found, _ = loaded[name]
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert float(np.abs(found - expected).max()) <= 1e-4


@pytest.mark.parametrize(
    "name", [name for name in KINDS if "_lora" in name or "_full" in name or name.startswith("chat")]
)
def test_the_adapter_matters(loaded: dict[str, tuple[Any, Any, Path]], name: str) -> None:
    """The control: outputs differ from those of the base alone, so the comparison above looked at the adapter."""
    expected, _, folder = loaded[name]
    models = folder.parent
    assert any((folder / part).is_dir() for part in ("adapter", "model")), models
    plain = loaded["text_head"][0] if name.startswith("text") else None
    if plain is not None:
        assert float(np.abs(expected - plain).max()) > 1e-2
    else:
        others = [loaded[other][0] for other in KINDS if other.startswith("chat") and other != name]
        assert all(float(np.abs(expected - other).max()) > 1e-2 for other in others)


def test_only_what_it_says_is_needed(loaded: dict[str, tuple[Any, Any, Path]]) -> None:
    folder = loaded["items"][2]
    assert not (loaded["table_number"][2] / "tokenizer").exists()
    assert (folder / "requirements.txt").read_text().split() == ["numpy", "safetensors"]
    script = (
        "import sys; sys.argv=['predict.py','i3']; import runpy; sys.path.insert(0, '.');"
        "\ntry: runpy.run_path('predict.py', run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy', 'transformers'} & set(sys.modules), 'too much'"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
    assert "peft" in (loaded["text_lora"][2] / "requirements.txt").read_text()


def test_what_has_no_open_form_is_refused() -> None:
    with pytest.raises(CannotExport):
        export.kind_of({"task": "poetry"})
    with pytest.raises(CannotExport, match="rank"):
        lora_files(
            {"lora.q.A": np.zeros((4, 8), np.float32)}, {"task": "chat", "rank": 8, "alpha": 8}, base="x"
        )


def test_flattening_takes_what_is_needed_and_no_more() -> None:
    text = flatten("modeling.core.exported.items", title="A title.")
    assert text.startswith('"""A title."""')
    assert "modeling" not in text
    assert "scipy" not in text
    assert "def collect" not in text
    compile(text, "predict.py", "exec")


@pytest.mark.real_weights
@pytest.mark.parametrize("base", ["minilm-l6"])
def test_real_weights(base: str, tmp_path: Path) -> None:
    """The real encoder with an adapter, through plain PEFT in this process."""
    from django.conf import settings
    from peft import PeftModel
    from transformers import AutoModel

    folder = bases.path(Path(settings.MODELS_DIR), base)
    encoder = Encoder(folder)
    encoder.dtype = torch.float32
    texts = ["Acute bronchitis due to rhinovirus", "Fracture of the left femur", "x"]
    plain = encoder.embed_all(texts)
    shapes = {
        path: (module.in_features, module.out_features)
        for path, module in encoder.model.named_modules()
        if path.endswith(("query", "value"))
    }
    tensors = {name: 0.2 * value for name, value in low_rank(shapes, 8).items()}
    config = {"task": "classification", "base": base, "method": "lora", "rank": 8, "alpha": 16.0}
    for name, content in lora_files(tensors, config, base=str(folder)).items():
        (tmp_path / name).write_bytes(content)
    lora.attach_artifact(encoder.model, tensors, config)
    expected = encoder.embed_all(texts)
    other = Encoder(folder)
    other.dtype = torch.float32
    model = AutoModel.from_pretrained(str(folder), add_pooling_layer=False, dtype=torch.float32)
    other.model = PeftModel.from_pretrained(model, str(tmp_path)).eval()
    assert float(np.abs(other.embed_all(texts) - expected).max()) <= 1e-4
    assert float(np.abs(plain - expected).max()) > 1e-2
