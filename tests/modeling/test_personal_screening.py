"""Personal data in uploads: counted, masked or refused by the policy that holds; what is sealed, shown, never said."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from modeling.actions import personal_policy, version_making
from modeling.actions.datasets import overlapping_datasets
from modeling.models import Dataset, DatasetVersion, File, VersionChange
from modeling.packs.personal import POLICIES
from tenants.models import AuditEntry
from tenants.scope import scope
from tests.modeling.test_files_api import inspect

NAME, PHONE, CARD = "Henrietta Vandermeer", "+44 20 7946 0958", "4111 1111 1111 1111"
ROWS = [
    ("P1", f"Patient {NAME} called from {PHONE} about the dose.", "urgent"),
    ("P1", "The wound heals well, no fever since the last visit.", "routine"),
    ("P2", f"He paid the parking with {CARD} and went home early.", "routine"),
    ("P3", "患者张伟民于2024年5月17日入院，手机号13812345678。", "urgent"),
] * 5
CSV = "\n".join(["patient_id,note,triage", *(",".join(f'"{cell}"' for cell in row) for row in ROWS)]).encode()
SECRETS = (NAME, PHONE, CARD, "张伟民", "13812345678")


def kept(
    api: Any, tenant: Any, policy: str = "", content: bytes = CSV, name: str = "notes.csv"
) -> dict[str, Any]:
    """The file object after upload and inspection."""
    form = {"purpose": "fine-tune", "file": SimpleUploadedFile(name, content)}
    made = api.client.post("/v1/files", form | ({"personal_data": policy} if policy else {}))
    assert made.status_code == 200, made.content
    inspect(tenant, made.json()["id"])
    return dict(api.get(f"/v1/files/{made.json()['id']}").json())


def content_of(api: Any, file: dict[str, Any]) -> str:
    return b"".join(api.get(f"/v1/files/{file['id']}/content").streaming_content).decode()


def test_it_works(acme: Any, api: Any) -> None:
    """Masked rows are sealed masked, counted by column and kind; ids and labels stay."""
    file = kept(
        api, acme, '{"entities": {"name": "mask", "phone": "mask", "card": "mask", "date": "report"}}'
    )
    found = file["personal_data"]
    assert found["found"] == {"note": {"name": 10, "phone": 10, "card": 5, "date": 5}}
    assert (found["columns"], found["rows_masked"]) == (["note"], 15)
    text = content_of(api, file)
    assert text.splitlines()[1] == "P1,Patient [NAME] called from [PHONE] about the dose.,urgent"
    assert "患者[NAME]于2024年5月17日入院，手机号[PHONE]。" in text
    assert not any(secret in text for secret in SECRETS)
    assert file["units"] == 3


def test_counted_rows_stay_as_they_were(acme: Any, api: Any) -> None:
    file = kept(api, acme, "report")
    assert file["personal_data"]["found"]["note"]["name"] == 10
    assert content_of(api, file).encode() == CSV


def test_off_looks_at_nothing(acme: Any, api: Any) -> None:
    file = kept(api, acme, "off")
    assert (file["personal_data"]["found"], file["personal_data"]["rows_masked"]) == ({}, 0)


def test_a_refused_file_says_where_and_of_which_kind(acme: Any, api: Any) -> None:
    file = kept(api, acme, '{"entities": {"card": "block"}}')
    assert file["status"] == "error"
    error = file["errors"][0]
    assert (error["line"], error["column"], error["rule"]) == (4, 2, "personal_data")
    assert "card" in error["fix"]
    with scope(acme):
        said = str(list(AuditEntry.objects.of(acme).values())) + str(file)
    assert "4111" not in said


@pytest.mark.parametrize(
    "wrong",
    [
        '{"entities": {"shoe": "mask"}}',
        '{"entities": {"name": "eat"}}',
        '{"kinds": {}}',
        "[1]",
        "{",
        '{"columns": 3}',
    ],
)
def test_a_policy_that_there_is_not_is_refused(api: Any, wrong: str) -> None:
    form = {"purpose": "fine-tune", "file": SimpleUploadedFile("a.csv", CSV), "personal_data": wrong}
    answer = api.client.post("/v1/files", form)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "personal_data"


def test_the_verticals_policy_holds_until_an_owner_chooses(people: Any, acme: Any, api: Any) -> None:
    usual = api.get("/v1/personal_data_policy").json()
    assert usual["entities"] == dict(POLICIES.get(acme.pack, POLICIES["general"]))
    changed = api.post("/v1/personal_data_policy", {"entities": {"card": "block"}}).json()
    assert (changed["entities"]["card"], changed["is_own"]) == ("block", True)
    assert kept(api, acme)["status"] == "error"
    for milder in ("off", '{"entities": {"card": "mask"}}'):  # what an owner set, an upload cannot soften
        assert kept(api, acme, milder, name="milder.csv")["status"] == "error"
    api.post("/v1/personal_data_policy", {"entities": {"card": "report"}})
    stricter = kept(api, acme, '{"entities": {"card": "mask"}}', name="own.csv")
    assert stricter["personal_data"]["policy"]["card"] == "mask"
    assert stricter["personal_data"]["found"]["note"]["card"] == 5
    assert api.post("/v1/personal_data_policy", {}).json() == usual
    assert people.api("globex").get("/v1/personal_data_policy").json()["is_own"] is False


def test_other_columns_by_choice_and_ids_never(acme: Any, api: Any) -> None:
    rows = [
        f"anna{n % 7}@example.com,a note of four words,+442079460{n:03d},{'ab'[n % 2]}" for n in range(60)
    ]
    content = "\n".join(["customer_id,note,contact,label", *rows]).encode()
    usual = kept(api, acme, '{"entities": {"email": "mask", "phone": "mask"}}', content)
    assert usual["personal_data"]["found"] == {}
    assert usual["personal_data"]["warnings"] == [{"column": "customer_id", "kind": "email"}]
    chosen = kept(api, acme, '{"entities": {"phone": "mask"}, "columns": "all"}', content, "again.csv")
    text = content_of(api, chosen)
    assert (text.count("[PHONE]"), text.count("@example.com")) == (60, 60)


def test_masked_turns_of_a_conversation(acme: Any, api: Any) -> None:
    line = '{"messages": [{"role": "user", "content": "I am %s, call %s"}, {"role": "assistant", "content": "Done."}]}'
    file = kept(api, acme, "mask", (line % (NAME, PHONE) + "\n").encode() * 12, "talks.jsonl")
    text = content_of(api, file)
    assert text.count('"content": "I am [NAME], call [PHONE]"') == 12
    assert text.count('"role": "user"') == 12


def test_masking_does_not_make_new_people(acme: Any, api: Any) -> None:
    """Each row is one person: the masked file shares all rows with the same file uploaded as it is."""
    rows = [f"note number {n} of {NAME} about dose {n * 7},{'ab'[n % 2]}" for n in range(40)]
    content = "\n".join(["note,label", *rows]).encode()
    plain, masked = kept(api, acme, "off", content), kept(api, acme, "mask", content, "masked.csv")
    with scope(acme):
        one = Dataset.objects.of(acme).get(public_id=plain["dataset"])
        other = Dataset.objects.of(acme).get(public_id=masked["dataset"])
        assert overlapping_datasets(other) == [one]


def test_a_corrected_policy_makes_the_next_version(people: Any, acme: Any, api: Any) -> None:
    file = kept(api, acme, "report")
    api.post("/v1/personal_data_policy", {"entities": {"name": "mask", "phone": "mask", "card": "off"}})
    made = api.post(f"/v1/datasets/{file['dataset']}/versions", {"mode": "mask"})
    assert made.status_code in (200, 202), made.content
    with scope(acme):
        change = VersionChange.objects.of(acme).get()
    version_making.make(acme.pk, change.pk)
    with scope(acme):
        versions = list(DatasetVersion.objects.of(acme).order_by("number"))
        assert [one.mode for one in versions] == ["file", "mask"]
        assert versions[1].personal_data["found"]["note"]["name"] == 10
        assert (versions[1].rows, versions[1].units) == (20, 3)
    rest = "".join(map(str, _cells(acme, versions[1])))
    assert NAME not in rest
    assert CARD in rest
    page = people.browser("alice").get(f"/t/{acme.slug}/data/{file['dataset']}/").content.decode()
    assert "Names of people" in page
    again = api.post(f"/v1/datasets/{file['dataset']}/versions", {"mode": "mask"})
    version_making.make(acme.pk, _newest(acme).pk)
    assert again.status_code in (200, 202)
    assert _newest(acme).error["code"] == "nothing_changed"


def _newest(tenant: Any) -> VersionChange:
    with scope(tenant):
        return VersionChange.objects.of(tenant).order_by("-created_at")[0]


def _cells(tenant: Any, version: DatasetVersion) -> list[Any]:
    from modeling.rows import read_rows

    return [row.values for row in read_rows(version)]


def test_who_sees_and_who_changes(people: Any, acme: Any, api: Any) -> None:
    file = kept(api, acme, "report")
    place = f"/t/{acme.slug}/data/{file['dataset']}/"
    alice, bob, vera = (people.browser(name) for name in ("alice", "bob", "vera"))
    assert "Names of people" in bob.get(place).content.decode()
    assert "Names of people" not in vera.get(place).content.decode()
    policy = f"/t/{acme.slug}/personal-data/"
    assert vera.get(policy).status_code == 403
    assert "An owner changes this policy." in bob.get(policy).content.decode()
    assert bob.post(f"{policy}change/", {"name": "block"}).status_code == 403
    alice.post(f"{policy}change/", {"name": "block", "columns": "all"})
    with scope(acme):
        held = personal_policy.policy_of_tenant(acme)
    assert (held.policy.action("name"), held.columns) == ("block", "all")
    assert "Back to what is usual" in alice.get(policy).content.decode()
    alice.post(f"{policy}change/", {"reset": "yes"})
    with scope(acme):
        assert not personal_policy.policy_of_tenant(acme).is_own


def test_nothing_of_it_is_in_the_row_of_the_file(acme: Any, api: Any) -> None:
    file = kept(api, acme, "mask")
    with scope(acme):
        version = DatasetVersion.objects.of(acme).get()
        row = str(vars(version)) + str(vars(File.objects.of(acme).get(public_id=file["id"])))
    assert not any(secret in row for secret in SECRETS)
