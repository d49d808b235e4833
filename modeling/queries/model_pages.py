"""What the pages of models show: rows of the list, the model card in words, snippets that call a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy

from modeling.core.types import Feature, Mechanism
from modeling.models import Dataset, Endpoint, ModelVersion
from modeling.queries import words
from modeling.queries.ledger_pages import mechanism_words
from modeling.queries.table_examples import example_row
from tenants.models import Tenant

METRICS = {
    "accuracy": gettext_lazy("Accuracy"),
    "token_accuracy": gettext_lazy("Share of tokens guessed right"),
    "token_accuracy_before": gettext_lazy("The same before training"),
    "answer_loss": gettext_lazy("Loss on answers"),
    "answer_loss_before": gettext_lazy("The same before training"),
    "hit_rate_at_20": gettext_lazy("Hidden item among the first 20"),
    "ndcg_at_20": gettext_lazy("NDCG at 20"),
    "mean_absolute_error": gettext_lazy("Mean absolute error"),
    "nine_in_ten_within": gettext_lazy("Nine in ten within"),
    "held_out_people": gettext_lazy("Held-out people"),
}
SHARES = ("accuracy", "token_accuracy", "token_accuracy_before", "hit_rate_at_20")
HEADLINE = ("accuracy", "token_accuracy", "hit_rate_at_20")


@dataclass(frozen=True)
class Metric:
    """One released number as the card prints it."""

    name: str
    value: str
    error: str
    interval: str = ""


@dataclass(frozen=True)
class ModelPage:
    """One model version as lists and headers print it."""

    name: str
    title: str
    short_id: str
    state: str
    task: str
    task_words: str
    method_words: str
    base: str
    endpoints: list[str]
    headline: Metric | None
    is_private: bool
    privacy_off_reason: str
    epsilon: float | None
    person: str
    created_at: datetime


def model_rows(tenant: Tenant, versions: list[ModelVersion]) -> list[ModelPage]:
    """Versions as the list prints them; the endpoints are read once."""
    names: dict[object, list[str]] = {}
    for name, version in Endpoint.objects.of(tenant).order_by("created_at").values_list("name", "version"):
        names.setdefault(version, []).append(name)
    return [model_page(tenant, version, names.get(version.pk, [])) for version in versions]


def model_page(tenant: Tenant, version: ModelVersion, endpoints: list[str]) -> ModelPage:
    """One version as lists and headers print it."""
    privacy = version.card.get("privacy", {})
    parts = version.name.split(":")
    suffix = parts[3] if len(parts) > 4 else ""
    return ModelPage(
        name=version.name,
        title=f"{suffix or ''.join(endpoints[:1]) or words.task_words(version.task)} · {version.short_id}",
        short_id=version.short_id,
        state=version.state,
        task=version.task,
        task_words=words.task_words(version.task),
        method_words=words.method_words(version.method),
        base=version.base,
        endpoints=endpoints,
        headline=headline(version.card.get("metrics", {})),
        is_private=privacy.get("mode") != "off",
        privacy_off_reason=privacy.get("reason", "") if privacy.get("mode") == "off" else "",
        epsilon=privacy.get("epsilon"),
        person=words.person(tenant),
        created_at=version.created_at,
    )


def headline(metrics: dict[str, Any]) -> Metric | None:
    """The one number that stands for a model in lists: accuracy, or what its task has instead."""
    shown = released(metrics)
    return next((shown[name] for name in HEADLINE if name in shown), None)


def card_page(tenant: Tenant, version: ModelVersion) -> dict[str, Any]:
    """The model card for its page: the JSON card with words where a person reads them."""
    card = version.card
    data, privacy = card.get("data", {}), card.get("privacy", {})
    dataset = Dataset.objects.of(tenant).filter(public_id=data.get("dataset", "")).first()
    unit = privacy.get("unit", "")
    return {
        "is_private": privacy.get("mode") != "off",
        "privacy_off_reason": privacy.get("reason", ""),
        "epsilon": privacy.get("epsilon"),
        "epsilon_replace_one": privacy.get("epsilon_replace_one"),
        "delta": privacy.get("delta"),
        "accounting": privacy.get("accountant", ""),
        "mechanisms": [mechanism_words(Mechanism(**one)) for one in privacy.get("mechanisms", [])],
        "headline": headline(card.get("metrics", {})),
        "metrics": list(released(card.get("metrics", {}), card.get("intervals", {})).values()),
        "dataset": dataset.name if dataset else data.get("dataset", ""),
        "dataset_id": dataset.public_id if dataset and dataset.deleted_at is None else "",
        "dataset_version": data.get("version"),
        "rows": data.get("rows"),
        "train_units": data.get("training_units"),
        "held_out_units": data.get("held_out_units"),
        "labels": data.get("labels", []),
        "declared_public": data.get("declared_public", []),
        "limits": card.get("limits", []),
        "notes": card.get("notes", []),
        "job": card.get("job", ""),
        "base": card.get("base", {}),
        "artefact": card.get("artefact", {}),
        "training": card.get("training", {}),
        "commitment": data.get("commitment", {}),
        "plain_words": privacy.get("plain_words", []),
        "report": card.get("report", {}),
        "assessment": card.get("assessment", []),
        "is_named": unit not in ("", "row"),
        "receipt_key": version.receipt["signatures"][0]["keyid"] if version.receipt else "",
        "person": words.person(tenant),
        "unit_words": words.unit_words(tenant, "" if unit == "row" else unit),
    }


def released(metrics: dict[str, Any], intervals: Mapping[str, Any] | None = None) -> dict[str, Metric]:
    """Released numbers by name; "<name>_noise_error", or "noise_error" for rates, is the error of the noise."""
    shown = {}
    spans = intervals or {}
    for name, value in metrics.items():
        if name.endswith("noise_error") or not isinstance(value, int | float):
            continue
        is_share = name in SHARES
        error = metrics.get(f"{name}_noise_error", metrics.get("noise_error") if is_share else None)
        shown[name] = Metric(
            name=str(METRICS.get(name, name.replace("_", " ").capitalize())),
            value=f"{100 * value:.1f} %"
            if is_share
            else f"{value:,.0f}"
            if value >= 1000
            else f"{value:.4g}",
            error="" if error is None else f"{100 * error:.1f}" if is_share else f"{error:.2g}",
            interval=_interval(spans[name], is_share=is_share) if name in spans else "",
        )
    return shown


def _interval(span: Mapping[str, float], *, is_share: bool) -> str:
    """A 95 % interval as the card prints it."""
    if is_share:
        return f"{100 * span['low']:.1f}–{100 * span['high']:.1f} %"
    return f"{span['low']:.4g}–{span['high']:.4g}"


TEXTS = {
    "medical": "Acute bronchitis due to rhinovirus",
    "finance": "I was charged twice for the same transfer",
    "retail": "The parcel came late and one cup was broken",
    "general": "The meeting was moved to Thursday afternoon",
}


def sample_body(
    tenant: Tenant, task: str, items: Sequence[str] = (), features: Sequence[Feature] = ()
) -> dict[str, Any]:
    """What a first call of a model may send, without its name; `items` are known item ids, `features` its columns."""
    if features:
        return {"inputs": [example_row(features)]}
    if task == "chat":
        return {"messages": [{"role": "user", "content": TEXTS[tenant.pack]}]}
    if task == "recommendation":
        return {"history": list(items), "k": 5}
    return {"inputs": [TEXTS[tenant.pack]]}


def known_items(version: ModelVersion) -> list[str]:
    """Two item ids of a recommender, for examples; none for other models."""
    return [str(item) for item in version.config.get("items", [])[:2]]


PATHS = {"recommendation": "recommend", "chat": "chat/completions"}  # any other task: classify


def snippets(model: str, task: str, sample: dict[str, Any]) -> list[tuple[str, str]]:
    """(language, code) calls of the model: curl, Python, JavaScript; the key comes from the environment."""
    body = {"model": model} | sample
    url = f"{settings.PUBLIC_URL}/v1/{PATHS.get(task, 'classify')}"
    text = json.dumps(body, ensure_ascii=False, indent=2)
    curl = (
        f'curl {url} \\\n  -H "Authorization: Bearer $CLOISTER_API_KEY" \\\n'
        f"  -H \"Content-Type: application/json\" \\\n  -d '{text.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'"
    )
    script = (
        f'const answer = await fetch("{url}", {{\n  method: "POST",\n  headers: {{\n'
        "    Authorization: `Bearer ${process.env.CLOISTER_API_KEY}`,\n"
        '    "Content-Type": "application/json",\n  },\n'
        f"  body: JSON.stringify({text.replace(chr(10), chr(10) + '  ')}),\n}});\nconsole.log(await answer.json());"
    )
    return [("curl", curl), ("Python", _python(body, task, url)), ("JavaScript", script)]


def _python(body: dict[str, Any], task: str, url: str) -> str:
    if task == "chat":
        return (
            "import os\nfrom openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{settings.PUBLIC_URL}/v1", api_key=os.environ["CLOISTER_API_KEY"])\n'
            f"answer = client.chat.completions.create(\n    model={body['model']!r},\n"
            f"    messages={body['messages']!r},\n)\n"
            "print(answer.choices[0].message.content)"
        )
    rest = (
        json.dumps(body, ensure_ascii=False, indent=4).replace(": true", ": True").replace(": null", ": None")
    )
    return (
        f'import os\nimport requests\n\nanswer = requests.post(\n    "{url}",\n'
        '    headers={"Authorization": f"Bearer {os.environ[\'CLOISTER_API_KEY\']}"},\n'
        f"    json={rest.replace(chr(10), chr(10) + '    ')},\n    timeout=30,\n)\nprint(answer.json())"
    )
